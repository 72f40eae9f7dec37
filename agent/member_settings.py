"""The configuration with what enrolment knows put in where the owner wrote nothing; pure."""

import hashlib
from pathlib import Path

import msgspec

from agent.config import Config
from agent.enrolment.membership import Membership
from agent.errors import ConfigError

_MACHINE_ID = Path("/etc/machine-id")
_CONTEXT = b"edge-runtime/device/1\0"


def completed(config: Config, membership: Membership | None, paths: tuple[str, str, str]) -> Config:
    """Fill the gaps of a configuration.

    Args:
        config: As the owner wrote it: what stands there wins.
        membership: What enrolment left; ``None``: nothing.
        paths: Files of the CA, the certificate and the first TUF root; empty without membership.

    Raises:
        ConfigError: There are too many labels, with those of the enrolment.
    """
    if membership is None:
        return config
    known = membership.enrolment
    ca, certificate, root = paths
    try:
        device = msgspec.structs.replace(
            config.device,
            id=config.device.id or known.device,
            fleet=config.device.fleet or known.fleet,
            labels={**membership.labels, **config.device.labels},
        )
    except ValueError as error:
        raise ConfigError(f"{error}; those that were given at enrolment count too") from error
    repository = config.repository
    if not repository.url:
        repository = msgspec.structs.replace(
            repository,
            url=known.repository,
            mirrors=repository.mirrors or known.mirrors,
            ca=repository.ca or ca,
        )
    repository = msgspec.structs.replace(repository, root=repository.root or root)
    mqtt = config.mqtt
    if not mqtt.brokers:
        mqtt = msgspec.structs.replace(mqtt, brokers=known.brokers, ca=mqtt.ca or ca)
    if not mqtt.certificate:
        key = str(Path(certificate).with_name("device.key"))
        mqtt = msgspec.structs.replace(mqtt, certificate=certificate, key=mqtt.key or key)
    journal = config.journal
    if not journal.url:
        journal = msgspec.structs.replace(journal, url=known.journal)
    return msgspec.structs.replace(
        config, device=device, repository=repository, mqtt=mqtt, journal=journal
    )


def named(config: Config, machine_id: bytes) -> Config:
    """Give a device without a name one that is made of the machine's id.

    Args:
        config: Maybe without a name.
        machine_id: Of ``/etc/machine-id``; empty: unknown.

    Raises:
        ConfigError: It has no fleet, or nothing that a name could be made of.
    """
    device = config.device
    if not device.fleet:
        raise ConfigError(
            "the device belongs to no fleet: enrol it (`edge-agent enroll URL TOKEN`), or set "
            "device.fleet"
        )
    if device.id:
        return config
    if not machine_id:
        raise ConfigError(f"the device has no name: set device.id, since {_MACHINE_ID} is empty")
    name = machine_name(machine_id)
    return msgspec.structs.replace(config, device=msgspec.structs.replace(device, id=name))


def machine_name(machine_id: bytes) -> str:
    """Make a device's name of the machine's id; empty where that is unknown."""
    if not machine_id:
        return ""
    # machine-id(5): the id itself is not to be shown to others, a keyed digest of it may be.
    return f"d-{hashlib.blake2b(_CONTEXT + machine_id, digest_size=10).hexdigest()}"


def machine_id() -> bytes:
    """Read the machine's id; empty where there is none."""
    try:
        return _MACHINE_ID.read_bytes().strip()
    except OSError:
        return b""
