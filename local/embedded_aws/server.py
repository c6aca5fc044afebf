"""Starting and stopping the embedded AWS.

ministack reads its environment when it is imported, so the port is bound and the environment set before that.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace

from local.embedded_aws import settings as settings_module
from local.embedded_aws.settings import Settings, read_settings

SERVICES = (
    "iam",
    "ecr",
    "mailbox",
    "s3_events",
    "s3_uploads",
    "event_bridge",
    "lambda_code",
    "lambda_functions",
    "step_functions_language",
    "step_functions_tasks",
    "step_functions_integrations",
    "cloudformation",
    "codecommit",
    "codebuild",
    "alarms",
    "training_jobs",
    "sagemaker_pipelines",
    "fault_injection",
)
"""Modules of this package with an `install()`; a later one may build on an earlier one."""

THE_DEVELOPERS_OWN = (
    "AWS_CONFIG_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
)
"""Variables that no Lambda on AWS would see."""

STARTUP_SECONDS = 30.0
STOP_SECONDS = 2.0


def main() -> None:
    listener = socket.create_server(("127.0.0.1", read_settings(os.environ).port))
    settings = replace(read_settings(os.environ), port=listener.getsockname()[1])
    prepare(settings)
    for service in SERVICES:
        importlib.import_module(f"local.embedded_aws.{service}").install()
    asyncio.run(serve(settings, listener))


def prepare(settings: Settings) -> None:
    """Make the folders and the environment that ministack, the Lambdas and the builds run in."""
    for folder in (settings.home, settings.temporary, settings.mailbox):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment(settings))
    for name in THE_DEVELOPERS_OWN:
        os.environ.pop(name, None)
    tempfile.tempdir = None  # whoever asked for a temporary folder before now was told another one
    logging.basicConfig(
        filename=settings.home / "server.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s [%(name)s] %(message)s",
    )
    settings_module.use(settings)


def environment(settings: Settings) -> dict[str, str]:
    """What is set for ministack, and is inherited by the Lambdas."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return {
        "GATEWAY_PORT": str(settings.port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "localhost",
        "MINISTACK_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": "test",  # the account's root
        "AWS_SECRET_ACCESS_KEY": "test",
        "PERSIST_STATE": "0",
        "S3_PERSIST": "0",
        "IOT_MTLS_ENABLED": "0",  # it would listen on port 8883
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{settings.home}/no-docker",  # builds look for their own; ministack must not
        "TMPDIR": str(settings.temporary),
        "AWS_XRAY_SDK_ENABLED": "false",  # there is no X-Ray daemon
        "POWERTOOLS_TRACE_DISABLED": "true",
        "TZ": ":UTC",
    }


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until told to stop; ends the process."""
    from hypercorn.asyncio import serve as serve_http
    from hypercorn.config import Config
    from ministack import app

    from local.embedded_aws.fault_injection import faulty

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    configuration = Config()
    configuration.bind = [f"fd://{listener.fileno()}"]
    configuration.keep_alive_timeout = 75
    configuration.graceful_timeout = STOP_SECONDS
    configuration.shutdown_timeout = STOP_SECONDS
    configuration.accesslog = None
    configuration.errorlog = logging.getLogger("hypercorn.error")
    announcement = asyncio.create_task(announce(settings.endpoint))
    await serve_http(faulty(app.app), configuration, shutdown_trigger=stop.wait)
    announcement.cancel()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut the clearing up short
    stop_children()
    shutil.rmtree(settings.temporary, ignore_errors=True)
    # Past asyncio and Python, which would join the threads of executions that wait for a token or a timer.
    os._exit(0)


async def announce(endpoint: str) -> None:
    """Print the ready line as soon as the server answers."""

    def answers() -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            return bool(urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=5).status == 200)
        return False

    loop = asyncio.get_running_loop()
    deadline = loop.time() + STARTUP_SECONDS
    while not await asyncio.to_thread(answers):
        if loop.time() > deadline:
            raise TimeoutError(f"{endpoint} did not answer within {STARTUP_SECONDS:.0f} s")
        await asyncio.sleep(0.05)
    print(f"ready {endpoint}", flush=True)


def stop_children() -> None:
    """End what the services have started; one that fails does not keep the others."""
    from local.embedded_aws.registration import AT_SHUTDOWN

    for function in AT_SHUTDOWN:
        try:
            function()
        except Exception:  # what is left to stop must be stopped all the same
            logging.getLogger("embedded_aws").exception("%r failed at shutdown", function)
