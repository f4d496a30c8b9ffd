"""Where things are and what they may know: one frozen object, read once per process from `FAIRLEAD_*`."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Addresses and secrets. Behaviour is in the policy file."""

    model_config = SettingsConfigDict(env_prefix="FAIRLEAD_", frozen=True, extra="ignore", populate_by_name=True)

    kafka: str = "127.0.0.1:9092"
    """Bootstrap servers, `host:port[,host:port]`."""
    redis: str = "redis://127.0.0.1:6379/0"
    database: SecretStr = SecretStr("postgresql+asyncpg://fairlead@127.0.0.1:5432/fairlead")

    kafka_fetch_max_wait_ms: int = 500
    """A few milliseconds on the in-memory broker, which does not wake a waiting fetch."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8080
    public_url: str | None = None
    """Base of the links in answers; taken from the request when absent."""
    metrics_port: int = 0
    """Port for `/metrics` and `/healthz` of the workers; 0 takes a free one, -1 serves none."""

    key_pepper: SecretStr = SecretStr("")
    """Mixed into the hashes of API keys."""
    widget_secret: SecretStr = SecretStr("")
    """Signs widget tokens (HS256), at least 32 bytes; empty refuses to issue any."""
    widget_token_seconds: int = Field(default=900, ge=30, le=86_400)
    rate_limit_per_minute: int = Field(default=600, ge=1)
    """Turns a tenant may submit per minute through one gateway; a visitor's widget token gets a tenth."""
    max_body_bytes: int = Field(default=131_072, ge=1024)

    policy: Path | None = None
    """YAML policy; the one shipped with the package when absent."""

    knowledge_hosts: str = ""
    """Hosts inside that `fairlead kb add` may fetch from: `wiki.intranet, docs:8080, 10.1.0.0/16`. The internet it may
    anyway; metadata services never."""

    discovery_base_url: str | None = None
    discovery_dialect: Literal["tgi", "openai", "local"] = "tgi"
    """`local` has no server: each agent process of the lane loads the model itself."""
    discovery_api_key: SecretStr = SecretStr("-")
    local_model: str | None = None
    """Directory of the base model, or its name in the machine's Hugging Face cache; the policy's name when absent."""
    local_adapters: Path | None = None
    """Folder that holds a folder for each adapter, by its name in the policy."""
    local_load_seconds: float = Field(default=600.0, gt=0)
    """How long loading the local model may take before it counts as failed."""
    frontier_base_url: str | None = None
    frontier_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("FAIRLEAD_FRONTIER_API_KEY", "OPENAI_API_KEY")
    )

    embeddings_base_url: str | None = None
    """Up to `/v1`, of any server with OpenAI's API; the official one if only a model is named."""
    embeddings_api_key: SecretStr = SecretStr("")
    embeddings_model: str | None = None
    """Makes the vectors of knowledge bases; without one each knowledge base fits its own."""

    @property
    def served_backends(self) -> frozenset[str]:
        """Return the backends that have a model; the others are answered by the offline provider."""
        discovery = self.discovery_base_url or self.discovery_dialect == "local"
        frontier = self.frontier_base_url or self.frontier_api_key.get_secret_value()
        return frozenset(name for name, there in (("discovery", discovery), ("frontier", frontier)) if there)

    worker_capacity: int = Field(default=500, ge=1)
    """Turns one agent worker process carries at a time."""
    drain_seconds: float = 75.0
    upkeep_seconds: float = 1.0

    log_format: Literal["auto", "json", "pretty"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP); absent exports nothing."""
