import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

import org.jivesoftware.smack.ConnectionConfiguration.SecurityMode;
import org.jivesoftware.smack.ConnectionListener;
import org.jivesoftware.smack.XMPPConnection;
import org.jivesoftware.smack.filter.StanzaTypeFilter;
import org.jivesoftware.smack.packet.Message;
import org.jivesoftware.smack.packet.MessageBuilder;
import org.jivesoftware.smack.packet.Stanza;
import org.jivesoftware.smack.tcp.XMPPTCPConnection;
import org.jivesoftware.smack.tcp.XMPPTCPConnectionConfiguration;
import org.jivesoftware.smackx.carbons.CarbonManager;
import org.jivesoftware.smackx.carbons.packet.CarbonExtension;

/**
 * One device that speaks through Smack, driven line by line: words in on standard input, `KIND CONTENT` out.
 *
 * <p>Arguments: host, port, domain, CA file, user; the password is the first line. Then:
 * {@code login}, {@code send JID BODY} (BODY up to the end of the line), {@code drop} (the network is gone),
 * {@code resume} (log in again, to the same stream where the server still has it), {@code logout}.
 */
public final class Client {

    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private final XMPPTCPConnection connection;

    private Client(XMPPTCPConnection connection) {
        this.connection = connection;
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        XMPPTCPConnectionConfiguration.Builder configuration = XMPPTCPConnectionConfiguration.builder();
        configuration.setHost(arguments[0]);
        configuration.setPort(Integer.parseInt(arguments[1]));
        configuration.setXmppDomain(arguments[2]);
        configuration.setSecurityMode(SecurityMode.required);
        configuration.setCustomX509TrustManager(trusting(arguments[3]));
        configuration.setUsernameAndPassword(arguments[4], in.readLine());

        Client client = new Client(new XMPPTCPConnection(configuration.build()));
        client.listen();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            client.obey(line);
        }
        client.connection.disconnect();
    }

    private void listen() {
        connection.setUseStreamManagement(true);
        connection.setUseStreamManagementResumption(true);
        connection.addConnectionListener(new ConnectionListener() {
            @Override
            public void authenticated(XMPPConnection authenticated, boolean resumed) {
                say(resumed ? "resumed" : "authenticated", String.valueOf(connection.getUser()));
            }

            @Override
            public void connectionClosedOnError(Exception error) {
                say("broken", error.toString());
            }
        });
        connection.addSyncStanzaListener(Client::hear, StanzaTypeFilter.MESSAGE);
        CarbonManager.getInstanceFor(connection).addCarbonCopyReceivedListener(
            (direction, copy, wrapping) -> say("carbon-" + direction.name(), xml(copy)));
    }

    private void obey(String line) throws Exception {
        String[] words = line.split(" ", 3);
        switch (words[0]) {
            case "login":
                connection.connect().login();
                CarbonManager.getInstanceFor(connection).enableCarbons();
                say("ready", connection.getUser().toString());
                break;
            case "send":
                send(words[1], words[2]);
                break;
            case "drop":
                connection.instantShutdown();
                say("dropped", "");
                break;
            case "resume":
                connection.connect().login();
                break;
            case "logout":
                connection.disconnect();
                say("away", "");
                break;
            default:
                throw new IllegalArgumentException(line);
        }
    }

    private void send(String to, String body) throws Exception {
        MessageBuilder message = connection.getStanzaFactory().buildMessageStanza()
            .to(to).ofType(Message.Type.chat).setBody(body);
        message.addExtension(new Extension());
        Message made = message.build();
        say("sent", made.getStanzaId());
        connection.sendStanza(made);
    }

    private static void hear(Stanza stanza) {
        if (CarbonExtension.from((Message) stanza) == null) { // Smack's own manager unwraps those
            say("message", xml(stanza));
        }
    }

    private static String xml(Stanza stanza) {
        return stanza.toXML().toString();
    }

    private static synchronized void say(String kind, String content) {
        OUT.println(kind + " " + content.replace("\r", "&#13;").replace("\n", "&#10;"));
    }

    private static X509TrustManager trusting(String file) throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = new FileInputStream(file)) {
            int number = 0;
            for (Certificate authority : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                store.setCertificateEntry("authority-" + number++, authority);
            }
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(store);
        return (X509TrustManager) managers.getTrustManagers()[0];
    }
}
