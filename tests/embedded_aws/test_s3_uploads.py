"""What S3 tells of objects that come in several parts, on their way and once they are there."""

import time

from tests.embedded_aws.running import RunningEmbeddedAws


def test_an_upload_in_parts_is_listed_while_it_goes_on_and_dates_its_object_by_its_beginning(
    aws: RunningEmbeddedAws, unique: str
) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=unique)
    s3.put_bucket_versioning(Bucket=unique, VersioningConfiguration={"Status": "Enabled"})
    upload = {"Bucket": unique, "Key": "cats/a.jpg"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    s3.create_multipart_upload(Bucket=unique, Key="dogs/a.jpg")
    part = s3.upload_part(**upload, PartNumber=1, Body=b"a")["ETag"]
    (listed,) = s3.list_multipart_uploads(Bucket=unique, Prefix="cats/")["Uploads"]
    time.sleep(2.1)  # the dates have whole seconds

    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    s3.put_object(Bucket=unique, Key="cats/b.jpg", Body=b"b")

    assert "Uploads" not in s3.list_multipart_uploads(Bucket=unique, Prefix="cats/")
    first, second = s3.list_object_versions(Bucket=unique)["Versions"]
    assert first["LastModified"] == listed["Initiated"]
    assert (second["LastModified"] - first["LastModified"]).total_seconds() >= 2
    assert s3.head_object(Bucket=unique, Key="cats/a.jpg")["LastModified"] == listed["Initiated"].replace(
        microsecond=0
    )
