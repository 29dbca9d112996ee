"""C2PA signatures (extra `provenance`): who signed a picture file and what it was made from.

They also show that no byte has changed since. Turns become ingredients: each turn is signed with the
previous signed turn as its parent.

Without an operator certificate, a self-issued one is created on this machine: it proves that a file was not
altered after signing, not who created it. Sign last; saving in another program drops the signature. Formats
and terms: C2PA specification 2.1; certificates follow its section 14 (leaf not self-signed, emailProtection).
"""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kontext.errors import BadConfig, BadRequest
from kontext.pictures import read_file, write
from kontext.session.editors import ResultLike
from kontext.session.home import default_folder
from kontext.session.pixels import as_picture, to_png
from kontext.session.provenance import HistoryEntry, chain_of, encode, extend_history, source_type
from kontext.session.tree import Turn
from kontext.version import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "Kontext self-issued certificate (identity not verified)"
NO_LIBRARY = "signatures need the extra `provenance`: pip install 'openkontext[provenance]'"
YEARS = 10
MAX_INGREDIENTS = 20  # turns per file: 6 kB each, and quadratic time
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """A private key with its certificate chain (leaf first), all PEM; ECDSA P-256."""

    key: bytes
    chain: bytes
    anchor: bytes
    """The root certificate that verifiers must trust."""


def own_identity(folder: str | os.PathLike | None = None) -> Identity:
    """The identity in `folder` (default: `signing` in the data folder), created on first use.

    Operators can put their own `key.pem`, `chain.pem` and `anchor.pem` there. Raises BadConfig, BadRequest.
    """
    folder = Path(folder) if folder else default_folder() / "signing"
    paths = {name: folder / f"{name}.pem" for name in ("key", "chain", "anchor")}
    if not any(path.exists() for path in paths.values()):
        _keep(_issue(), folder)
    try:
        return Identity(**{name: path.read_bytes() for name, path in paths.items()})
    except OSError as error:
        raise BadConfig(
            f"{error.filename}: cannot be read ({error.strerror}); give all of {', '.join(paths)}.pem"
        ) from None


def own_anchors() -> list[bytes]:
    """The root certificate of this machine, if it exists; it is trusted only here."""
    path = default_folder() / "signing" / "anchor.pem"
    return [path.read_bytes()] if path.exists() else []


def _keep(identity: Identity, folder: Path) -> None:
    """Store all three files atomically by renaming a folder; of two concurrent processes, one wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".signing-") as temporary:
        new_folder = Path(temporary) / "signing"
        new_folder.mkdir(mode=0o700)
        for name, pem in asdict(identity).items():
            write(new_folder / f"{name}.pem", pem).chmod(0o600)
        try:
            new_folder.rename(folder)
        except OSError:
            log.info("another process created %s first", folder)


def sign(
    data: bytes, identity: Identity, chain: Sequence[HistoryEntry], parent: bytes | None = None
) -> bytes:
    """Sign PNG bytes.

    `chain` ends with the turn of the picture; `parent` is the file of the previous turn, embedded with
    its own signatures as an ingredient.

    Prompts are not part of the signature. Raises BadRequest if the extra is missing or the data is not a PNG.
    """
    c2pa = _library()
    agent = {"name": "openkontext", "version": __version__}
    done = {"digitalSourceType": source_type(chain), "softwareAgent": agent}
    if parent is None:
        actions = [{"action": "c2pa.created", **done}]
    else:
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
        actions = [opened, {"action": "c2pa.edited", **done}]
    manifest = {
        "claim_generator_info": [agent],
        "title": f"turn {len(chain) - 1}",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    try:
        with (
            c2pa.Context(_settings(c2pa, identity.anchor)) as context,
            c2pa.Builder(manifest, context) as builder,
        ):
            if parent is not None:
                ingredient = {
                    "title": f"turn {len(chain) - 2}",
                    "relationship": "parentOf",
                    "label": "parent",
                }
                builder.add_ingredient(ingredient, "image/png", io.BytesIO(parent))
            info = c2pa.C2paSignerInfo(b"es256", identity.chain, identity.key, None)
            signed = io.BytesIO()
            with c2pa.Signer.from_info(info) as signer:
                builder.sign(signer, "image/png", io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        raise BadRequest(f"this picture cannot be signed: {str(error)[:200]}") from None
    return signed.getvalue()


def sign_turns(turns: Sequence[Turn], identity: Identity, *, strip: bool = False) -> bytes:
    """The last of `turns` (a path from the first picture, `Session.history`) as a signed PNG.

    Up to MAX_INGREDIENTS previous turns are embedded as ingredients; the picture they start from has no
    signature. `strip` omits the texts of `provenance`.
    """
    chain = chain_of(turns)
    data: bytes | None = None
    first = max(0, len(turns) - 1 - MAX_INGREDIENTS)
    for number, turn in enumerate(turns[first:], start=first):
        if not turn.has_picture:  # a restored history without this picture
            continue
        with_text = turn is turns[-1] and not strip
        bare = encode(turn.picture, chain) if with_text else to_png(turn.picture)
        unsigned = turn.kind == "source" or (data is None and turn.kind == "edit" and turn is not turns[-1])
        data = bare if unsigned else sign(bare, identity, chain[: number + 1], data)
    if data is None:
        raise BadRequest("this turn has no picture to sign")
    return data


def sign_result(result: ResultLike, source: str | Path | bytes | None, identity: Identity) -> bytes:
    """A Result created outside a session as a signed PNG with its history; see `extend_history` for `source`.

    A source signed by this identity is embedded with its signature, any other as pixels only, so that its
    metadata (camera, location) is not published.
    """
    parent = None
    if source is not None:
        data = source if isinstance(source, bytes) else read_file(Path(source))
        ours = read_signature(data, [identity.anchor]).state == "trusted"
        parent = data if ours else to_png(as_picture(data))
    chain = extend_history(source, result)
    return sign(encode(result.picture, chain), identity, chain, parent)


@dataclass(frozen=True)
class Signature:
    """The signature of a file."""

    state: str
    """none, trusted (intact, trusted certificate), valid (intact, untrusted certificate), invalid, or unread
    (the extra is not installed).
    """
    signer: str | None = None
    issuer: str | None = None
    turns: int = 0
    """Number of signed steps in the file, including the last."""
    problems: tuple[str, ...] = ()

    @property
    def self_issued(self) -> bool:
        return self.issuer is not None and ISSUER in self.issuer


def read_signature(data: bytes, anchors: Iterable[bytes] = ()) -> Signature:
    """Read the signature in PNG, JPEG or WebP bytes, verified against trusted root certificates (PEM)."""
    try:
        c2pa = _library()
    except BadRequest:
        return Signature("unread" if b"caBX" in data or b"c2pa" in data else "none")
    trusted, mime = b"\n".join(anchors), _mime(data)
    if not mime:
        return Signature("none")
    try:
        with c2pa.Context(_settings(c2pa, trusted)) as context:
            reader = c2pa.Reader.try_create(mime, io.BytesIO(data), context=context)
            if reader is None:
                return Signature("none")
            with reader:
                report, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        return Signature("invalid", problems=(str(error)[:200],))
    active = report["manifests"].get(report.get("active_manifest"), {})
    info = active.get("signature_info", {})
    problems = tuple(
        f"{status.get('code')}: {status.get('explanation', '')}"
        for status in report.get("validation_status", ())
        if status.get("code") != "signingCredential.untrusted"
    )
    return Signature(
        state=(state or "invalid").lower(),
        signer=info.get("common_name"),
        issuer=info.get("issuer"),
        turns=len(report["manifests"]),
        problems=problems,
    )


def _mime(data: bytes) -> str:
    starts = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "image/webp"}
    return next((mime for start, mime in starts.items() if data.startswith(start)), "")


def _settings(c2pa: ModuleType, anchors: bytes) -> object:
    # Thumbnails would add hundreds of kilobytes per turn.
    settings: dict[str, object] = {"builder": {"thumbnail": {"enabled": False}}}
    if anchors:
        settings["trust"] = {"user_anchors": anchors.decode()}
    return c2pa.Settings.from_dict(settings)


def _library() -> ModuleType:
    try:
        import c2pa
    except ImportError:
        raise BadRequest(NO_LIBRARY) from None
    return c2pa


def _issue() -> Identity:
    """Create a self-issued root and leaf certificate (ECDSA P-256) for this machine."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise BadRequest(NO_LIBRARY) from None

    def name(common: str) -> x509.Name:
        pairs = [(NameOID.ORGANIZATION_NAME, ISSUER), (NameOID.COMMON_NAME, common)]
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in pairs])

    def certificate(
        subject: x509.Name, public: ec.EllipticCurvePublicKey, authority: bool
    ) -> x509.Certificate:
        uses = {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
        never = ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
        never += ["encipher_only", "decipher_only"]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
            .add_extension(x509.KeyUsage(**uses, **dict.fromkeys(never, False)), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        )
        if not authority:
            email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(email, critical=True)
        return builder.sign(root_key, hashes.SHA256())

    now = datetime.now(UTC)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = name("Kontext root of this machine")
    root = certificate(root_name, root_key.public_key(), True)
    leaf = certificate(name("Kontext on this machine"), leaf_key.public_key(), False)
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(key, leaf.public_bytes(pem) + root.public_bytes(pem), root.public_bytes(pem))
