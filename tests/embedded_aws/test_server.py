"""The embedded AWS starts fast, listens on the loopback interface alone and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.running import REPOSITORY, RunningEmbeddedAws, allow, policy_document

START_SECONDS = 4.0
MEMORY_MB = 300
LISTENING = "0A"


def listening_addresses(process: int) -> set[str]:
    """Addresses, as the kernel writes them, of the sockets on which the process listens."""
    inodes = {
        found[1]
        for link in Path(f"/proc/{process}/fd").iterdir()
        if (found := re.match(r"socket:\[(\d+)\]", str(link.readlink())))
    }
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                addresses.add(fields[1].split(":")[0])
    return addresses


def children(process: int) -> list[int]:
    """The process's children and theirs."""
    direct = [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return direct + [grandchild for child in direct for grandchild in children(child)]


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_it_starts_within_four_seconds_and_three_hundred_megabytes(tmp_path: Path) -> None:
    with RunningEmbeddedAws(tmp_path) as aws:
        assert aws.process is not None
        # Of a processor, so that a machine that does something else as well does not fail the test.
        user, system = Path(f"/proc/{aws.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        status = Path(f"/proc/{aws.process.pid}/status").read_text()
        megabytes = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024
    assert megabytes < MEMORY_MB
    assert seconds < START_SECONDS


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_every_child_and_removes_its_temporary_files(
    tmp_path: Path, number: int
) -> None:
    with RunningEmbeddedAws(tmp_path / "home") as aws:
        assert aws.process is not None
        role = aws.create_role("role", "lambda.amazonaws.com", allow("*"))
        aws.create_function("sleepy", "import time\ndef handler(e, c):\n    time.sleep(e['s'])\n", role)
        aws.client("lambda").invoke(FunctionName="sleepy", Payload=b'{"s": 0}')
        aws.client("lambda").invoke(FunctionName="sleepy", Payload=b'{"s": 15}', InvocationType="Event")
        time.sleep(0.5)
        started = children(aws.process.pid)
        assert started
        before = time.monotonic()
        aws.process.send_signal(number)
        assert aws.process.wait(15) == 0
        assert time.monotonic() - before < 8
        assert not [child for child in started if Path(f"/proc/{child}").exists()]
    assert not (tmp_path / "home" / "tmp").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@linux
def test_it_listens_on_the_loopback_interface_alone(aws: RunningEmbeddedAws) -> None:
    assert aws.process is not None
    assert listening_addresses(aws.process.pid) == {"0100007F"}


def test_the_port_can_be_chosen_and_a_taken_one_is_an_error(aws: RunningEmbeddedAws, tmp_path: Path) -> None:
    port = aws.endpoint.rpartition(":")[2]
    second = subprocess.run(
        [os.environ.get("EMBEDDED_AWS_PYTHON") or sys.executable, "-m", "local.embedded_aws"],
        cwd=REPOSITORY,
        env={**os.environ, "EMBEDDED_AWS_PORT": port, "EMBEDDED_AWS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode != 0
    assert "ready" not in second.stdout
    assert "Address already in use" in second.stderr


def test_policies_are_enforced_and_the_deployer_is_root(aws: RunningEmbeddedAws) -> None:
    assert aws.client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::000000000000:root"
    iam = aws.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    with pytest.raises(ClientError, match="AccessDenied"):
        aws.client("s3", **keys).list_buckets()


def test_a_bucket_that_refuses_plain_http_serves_the_embedded_aws(
    aws: RunningEmbeddedAws, unique: str
) -> None:
    """The loopback connection is plain; policies see it as the TLS connection that it stands for."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=unique)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{unique}/*"}
    condition = {"Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    s3.put_bucket_policy(Bucket=unique, Policy=policy_document({**deny, **condition}))
    role = aws.create_role(unique, "lambda.amazonaws.com", allow("s3:*"))
    put = f"put_object(Bucket='{unique}', Key='k', Body=b'v')"
    code = f"import boto3\ndef handler(e, c):\n    boto3.client('s3').{put}\n"
    aws.create_function(unique, code, role)
    assert "FunctionError" not in aws.client("lambda").invoke(FunctionName=unique)
    assert s3.get_object(Bucket=unique, Key="k")["Body"].read() == b"v"
