"""Self-made certificates: an authority, and one certificate that it signs. Its key is thrown away at once."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=825)  # common clients accept no longer life of a server certificate
AUTHORITY = "tlim self-made CA"
FOR_SERVERS = (ExtendedKeyUsageOID.SERVER_AUTH,)
FOR_BOTH_ENDS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def new_pair(
    domain: str, purposes: Iterable[x509.ObjectIdentifier] = FOR_SERVERS, *, also: Iterable[str] = ()
) -> tuple[str, str]:
    """Return (authority's certificate, certificate with its key), both as PEM.

    The certificate is valid for `domain`, the names and IP addresses in `also`, localhost and the loopback address.
    Nobody can issue another one that trusts this authority, because the authority's key is not kept.
    """
    authority_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    authority = _authority(authority_key)
    certificate = _signed((domain, *also), key, authority, authority_key, purposes)
    key_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return authority.public_bytes(Encoding.PEM).decode(), certificate.public_bytes(Encoding.PEM).decode() + key_text


def is_ours(authority: bytes) -> bool:
    """Whether this PEM is an authority that `new_pair` made. It signs nothing more: without its pair it has no use."""
    try:
        subject = x509.load_pem_x509_certificate(authority).subject
    except ValueError:
        return False
    return subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY)])


def names_in(certificate: bytes) -> list[str]:
    """Return the DNS names for which the first certificate of this PEM is valid; raises ValueError if there is none."""
    try:
        extension = x509.load_pem_x509_certificate(certificate).extensions
        return extension.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return []


def is_named(domain: str, names: Iterable[str]) -> bool:
    """Whether one of a certificate's names is this domain; `*` stands for the first label (RFC 6125, section 6.4.3)."""
    wanted = domain.lower()
    return bool({wanted, f"*.{wanted.partition('.')[2]}"} & {name.lower() for name in names})


def _builder(subject: str, issuer: str, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(key: EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder(AUTHORITY, AUTHORITY, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )


def _signed(
    domains: tuple[str, ...],
    key: EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    purposes: Iterable[x509.ObjectIdentifier],
) -> x509.Certificate:
    names = [_name(one) for one in (*domains, "localhost", "127.0.0.1")]
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(domains[0], AUTHORITY, key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(authority_key, SHA256())
    )


def _name(text: str) -> x509.GeneralName:
    """Clients compare an IP address with entries of that kind only (RFC 6125, appendix B.2)."""
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
