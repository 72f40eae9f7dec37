"""Which devices a stage holds: by a number that every device works out for itself.

No list of devices is kept, so nobody needs one to answer; a wider stage holds all of a narrower
one; another salt orders the devices anew, so that the same are not always first.
``tests/vectors/buckets.json`` has examples worked out with other tools.
"""

from hashlib import sha256
from typing import Final

from fleet.documents.plan import Plan

BUCKETS: Final = 10_000


def bucket(salt: str, device: str) -> int:
    """Give the bucket of a device, 0 to 9,999.

    Args:
        salt: The plan's.
        device: The device's name.

    Returns:
        The first 32 bits of ``SHA-256(salt|device)``, as an unsigned number, modulo 10,000.
    """
    return int(sha256(f"{salt}|{device}".encode()).hexdigest()[:8], 16) % BUCKETS


def default_salt(model: str, version: int) -> str:
    """Give the salt of a release: plans use it unless they name another.

    Devices hold the signed ceiling of a first stage to the buckets of this salt, whatever a plan
    says; so a plan with it reaches as many devices as its first stage says.

    Args:
        model: The model's name.
        version: The release's version.

    Returns:
        The first 16 hexadecimal digits of ``SHA-256(model|version)``.
    """
    return sha256(f"{model}|{version}".encode()).hexdigest()[:16]


def admits(plan: Plan, device: str) -> bool:
    """Tell whether the present stage of a plan holds a device.

    Args:
        plan: The plan; its filter and window are not looked at.
        device: The device's name.
    """
    share = plan.stages[plan.stage].permyriad
    return device in plan.devices or bucket(plan.salt, device) < share
