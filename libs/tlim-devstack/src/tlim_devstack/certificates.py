"""The developer's own certificate authority, and the certificates of the XMPP server and of SeaweedFS' parts."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlim_devstack.private_files import write_private

LIFETIME = timedelta(days=825)  # common clients accept no longer life of a server certificate


def ensure_certificates(directory: Path, domain: str) -> tuple[Path, Path]:
    """Return (authority's certificate, server's certificate with key). The first call makes them in `directory`.

    The server's certificate is valid for `domain`, localhost and the loopback address. The authority's key is thrown
    away at once, so that nobody can issue another certificate that the developer's clients would trust.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_file, server_file = directory / "ca.pem", directory / f"{domain}.pem"
    if not (authority_file.exists() and server_file.exists()):
        _write_pair(authority_file, server_file, domain, ExtendedKeyUsageOID.SERVER_AUTH)
    return authority_file, server_file


def write_mutual_certificates(directory: Path) -> tuple[Path, Path]:
    """Make an authority, and one certificate with its key that it signs for both ends of a connection (mutual TLS).

    Return (authority's certificate, certificate with key). They are new at each call: nothing else may know them.
    """
    authority_file, mutual_file = directory / "mutual-ca.pem", directory / "mutual.pem"
    both_ends = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    _write_pair(authority_file, mutual_file, "localhost", *both_ends)
    return authority_file, mutual_file


def _write_pair(authority_file: Path, file: Path, domain: str, *purposes: x509.ObjectIdentifier) -> None:
    authority_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    authority = _authority(authority_key)
    certificate = _signed(domain, key, authority, authority_key, purposes)
    write_private(authority_file, authority.public_bytes(Encoding.PEM).decode())
    key_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    write_private(file, certificate.public_bytes(Encoding.PEM).decode() + key_text)


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


AUTHORITY = "tlim development CA"


def _authority(key: EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder(AUTHORITY, AUTHORITY, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )


def _signed(
    domain: str,
    key: EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    purposes: Iterable[x509.ObjectIdentifier],
) -> x509.Certificate:
    names = [x509.DNSName(domain), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(domain, AUTHORITY, key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(authority_key, SHA256())
    )


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
