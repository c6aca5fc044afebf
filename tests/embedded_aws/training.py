"""What tests of training need: roles, buckets, images whose `train` is a few lines, and requests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.embedded_aws import image_store
from local.embedded_aws.dockerfile import read_dockerfile
from local.embedded_aws.image_assembly import assemble_image
from local.embedded_aws.image_format import parse_reference
from tests.embedded_aws.running import ACCOUNT, REGION, RunningEmbeddedAws, allow, wait_for

DOCKERFILE = """
FROM scratch
ENV PATH=/opt/training:/usr/bin:/bin
COPY --chmod=755 train /opt/training/train
"""


class Training:
    """One test's bucket, image repository and training role, all named after `name`."""

    def __init__(self, aws: RunningEmbeddedAws, name: str) -> None:
        self.aws, self.name = aws, name
        self.bucket, self.repository = f"bucket-{name}", f"images-{name}"
        self.sagemaker = aws.client("sagemaker")
        aws.client("s3").create_bucket(Bucket=self.bucket)
        self.repository_arn = aws.client("ecr").create_repository(repositoryName=self.repository)[
            "repository"
        ]["repositoryArn"]
        self.role = aws.create_role(f"training-{name}", "sagemaker.amazonaws.com", *self.permissions())

    def permissions(self, without: str = "") -> list[dict[str, Any]]:
        """The statements of a training role, but for one action."""
        bucket = f"arn:aws:s3:::{self.bucket}"
        statements = {
            "s3:ListBucket": bucket,
            "s3:GetObject": f"{bucket}/*",
            "s3:PutObject": f"{bucket}/*",
            "ecr:BatchGetImage": self.repository_arn,
            "ecr:GetDownloadUrlForLayer": self.repository_arn,
            "ecr:GetAuthorizationToken": "*",
            "logs:CreateLogGroup": "*",
            "logs:CreateLogStream": "*",
            "logs:PutLogEvents": "*",
            "cloudwatch:PutMetricData": "*",
        }
        return [allow(action, on) for action, on in statements.items() if action != without]

    def put(self, key: str, body: bytes | str = b"x") -> None:
        self.aws.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)

    def read(self, key: str) -> bytes:
        content: bytes = self.aws.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def image(self, train: str, folder: Path, tag: str = "one", dockerfile: str = DOCKERFILE) -> str:
        """Assemble and push an image; its address by digest."""
        folder.mkdir(exist_ok=True)
        (folder / "train").write_text(train)
        image, _ = assemble_image(read_dockerfile(dockerfile), folder, {}, {}, lambda line: None)
        registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{self.repository}"
        reference = parse_reference(f"{registry}:{tag}")
        assert reference is not None
        return f"{registry}@{image_store.push(self.aws.client('ecr'), reference, image)}"

    def request(self, job: str, image: str, **more: Any) -> dict[str, Any]:
        """A CreateTrainingJob request that is taken as it is when an object lies under data/."""
        return {
            "TrainingJobName": job,
            "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
            "RoleArn": self.role,
            "InputDataConfig": [self.channel("dataset", "data/")],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out/", "CompressionType": "NONE"},
            "ResourceConfig": {"InstanceType": "ml.g5.8xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            **more,
        }

    def channel(self, name: str, prefix: str) -> dict[str, Any]:
        address = f"s3://{self.bucket}/{prefix}"
        return {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": address}},
        }

    def describe(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=job)
        return found

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create the job and await its end; its description."""
        self.sagemaker.create_training_job(**request)
        return self.ended(request["TrainingJobName"])

    def ended(self, job: str, seconds: float = 90) -> dict[str, Any]:
        def description() -> dict[str, Any] | None:
            found = self.describe(job)
            return found if found["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else None

        found: dict[str, Any] = wait_for(description, seconds)
        return found

    def events(self, detail_type: str) -> "Events":
        return Events(self.aws, self.name, detail_type)


class Events:
    """A queue that gets the events of one detail-type from now on."""

    def __init__(self, aws: RunningEmbeddedAws, name: str, detail_type: str) -> None:
        self._sqs = aws.client("sqs")
        rule = f"events-{name}-{abs(hash(detail_type)) % 1000}"
        queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{rule}"
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue,
                }
            ],
        }
        self._url = self._sqs.create_queue(QueueName=rule, Attributes={"Policy": json.dumps(policy)})[
            "QueueUrl"
        ]
        pattern = json.dumps({"detail-type": [detail_type]})
        aws.client("events").put_rule(Name=rule, EventPattern=pattern)
        aws.client("events").put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": queue}])
        self._received: list[dict[str, Any]] = []

    def received(self) -> list[dict[str, Any]]:
        """All events so far, in the order in which they were emitted."""
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                self._received.append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return self._received

    def where(self, **detail: Any) -> list[dict[str, Any]]:
        """Details of the received events that have these members."""
        details = [event["detail"] for event in self.received()]
        return [item for item in details if all(item.get(name) == value for name, value in detail.items())]
