"""What the commands are told by their environment."""

from pydantic import Field, SecretStr
from tlim_runtime.settings import EnvironmentSettings

from tlim_admin.object_store import FILES_BUCKET, REGION


class BucketSettings(EnvironmentSettings):
    """Where S3 is, and the key of its administrator; origins of web pages as the services have them."""

    s3_endpoint_url: str
    s3_bucket: str = FILES_BUCKET
    s3_region: str = REGION
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    cors_origins: list[str] = Field(default=[])
