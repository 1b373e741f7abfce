"""The certificates of a development stack: those of the XMPP server, and those of SeaweedFS' parts."""

from pathlib import Path

from tlim_admin.certificates import FOR_BOTH_ENDS, FOR_SERVERS, new_pair

from tlim_devstack.private_files import write_private


def ensure_certificates(directory: Path, domain: str) -> tuple[Path, Path]:
    """Return (authority's certificate, server's certificate with key). The first call makes them in `directory`.

    The server's certificate is valid for `domain`, localhost and the loopback address. The authority's key is thrown
    away at once, so that nobody can issue another certificate that the developer's clients would trust.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_file, server_file = directory / "ca.pem", directory / f"{domain}.pem"
    if not (authority_file.exists() and server_file.exists()):
        _write(new_pair(domain, FOR_SERVERS), authority_file, server_file)
    return authority_file, server_file


def write_mutual_certificates(directory: Path) -> tuple[Path, Path]:
    """Make an authority, and one certificate with its key that it signs for both ends of a connection (mutual TLS).

    Return (authority's certificate, certificate with key). They are new at each call: nothing else may know them.
    """
    authority_file, mutual_file = directory / "mutual-ca.pem", directory / "mutual.pem"
    _write(new_pair("localhost", FOR_BOTH_ENDS), authority_file, mutual_file)
    return authority_file, mutual_file


def _write(pair: tuple[str, str], *files: Path) -> None:
    for file, text in zip(files, pair, strict=True):
        write_private(file, text)
