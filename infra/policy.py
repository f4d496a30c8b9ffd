"""Reading the policy file."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from schemas.policy import Policy

DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")


class PolicyInvalid(Exception):
    """The policy file cannot be used. The message names the file, the place and the mend."""


def load_policy(path: Path | None = None) -> Policy:
    """Return the policy at `path`, or the one shipped with the package.

    Raises:
        PolicyInvalid: the file is missing, not YAML, or not a policy.
    """
    source = path or DEFAULT_POLICY
    try:
        return Policy.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise PolicyInvalid(f"cannot read the policy {source}: {error.strerror}; set FAIRLEAD_POLICY") from error
    except yaml.YAMLError as error:
        raise PolicyInvalid(f"the policy {source} is not YAML: {error}") from error
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'policy'}: {e['msg']}" for e in error.errors())
        raise PolicyInvalid(f"the policy {source} does not fit: {places}") from error
