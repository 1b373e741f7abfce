import org.jivesoftware.smack.packet.ExtensionElement;
import org.jivesoftware.smack.packet.XmlEnvironment;

/** The element that makes a message a tlim message: letter by letter what the specification shows in section 7. */
public class Extension implements ExtensionElement {

    private static final String ELEMENT_NAME = "tlim";

    private static final String NAME_SPACE = "im.itonglian.com";

    private static final String LOC_PROPERTY = "location";

    private static final String LOC_WEB = "web";

    private static final String LOC_MOBILE = "mobile";


    @Override
    public String getNamespace() {
        return NAME_SPACE;

    }

    @Override
    public String getElementName() {
        return ELEMENT_NAME;
    }

    @Override
    public CharSequence toXML() {
        StringBuilder str = new StringBuilder();
        str
            .append("<")
            .append(ELEMENT_NAME)
            .append(" xmlns='")
            .append(NAME_SPACE)
            .append("' ")
            .append(LOC_PROPERTY+"='")
            .append(LOC_WEB).append("'")
            .append("></")
            .append(ELEMENT_NAME)
            .append(">");
        return str.toString();
    }

    // The one addition: since Smack 4.4 this is what it calls, and the method above alone does not make the interface.
    @Override
    public CharSequence toXML(XmlEnvironment xmlEnvironment) {
        return toXML();
    }
}
