"""Start the service: `python -m file_api`, told by TLIM_* environment variables."""

from tlim_runtime.serving import serve

if __name__ == "__main__":
    serve("file_api", needs={"aiohttp"})  # aioboto3 talks to S3 with it
