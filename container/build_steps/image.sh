# How the image is built, pushed and named; read into bash by buildspec.yml's commands.
# shellcheck shell=bash

export IMAGE_REPOSITORY="${IMAGE_REPOSITORY_URI#*/}"

# build TARGET: the Dockerfile's stage as built/TARGET. SageMaker refuses OCI indexes: no attestations, so that the manifest
# stays a Docker one. The newest image's layers are the cache, which BuildKit reads from the registry; the first build has
# none.
build() {
    docker build --provenance=false --sbom=false --progress=plain \
        --cache-from "$IMAGE_REPOSITORY_URI:latest" --build-arg BUILDKIT_INLINE_CACHE=1 \
        --build-arg KOHYA_SS_VERSION="$KOHYA_SS_VERSION" --build-arg SOURCE_COMMIT="$SOURCE_COMMIT" \
        --build-arg KOHYA_SS_COMMIT="$KOHYA_SS_COMMIT" --build-arg TRAINER_COMMIT="$TRAINER_COMMIT" \
        --build-arg OPTION_TABLE_SHA256="$OPTION_TABLE_SHA256" --build-arg BUILD_TIME="$BUILD_TIME" \
        --target "$1" --tag "built/$1:$IMAGE_TAG" .
}

# report_no_tests: what a build reports whose tests do not come to run, because it fails before or finds its image there.
# CodeBuild may fail a build that leaves no report.
report_no_tests() {
    mkdir -p reports
    cat >reports/image-tests.xml <<'XML'
<testsuites><testsuite name="image" tests="1" skipped="1">
<testcase classname="image" name="tests"><skipped message="The tests of the image did not run."/></testcase>
</testsuite></testsuites>
XML
}

# run_tests: in the image, as SageMaker runs it: no network, nothing but /opt/ml and /tmp to write to.
run_tests() {
    docker run --rm --network none --read-only --tmpfs /tmp --tmpfs /opt/ml --volume "$PWD/reports:/reports" \
        "built/tests:$IMAGE_TAG"
}

# image_digest TAG: empty when there is no such image; any other answer of ECR's is an error.
image_digest() {
    local answer
    if answer=$(aws ecr describe-images --repository-name "$IMAGE_REPOSITORY" --image-ids imageTag="$1" \
        --query 'imageDetails[0].imageDigest' --output text 2>&1); then
        printf '%s\n' "$answer"
    elif [[ $answer != *ImageNotFoundException* ]]; then
        printf '%s\n' "$answer" >&2
        return 1
    fi
}

# image_manifest TAG: the bytes that the digest is taken of. SageMaker takes Docker's schema 2 and nothing else, so nothing
# else is ever called latest.
image_manifest() {
    local manifest
    manifest=$(aws ecr batch-get-image --repository-name "$IMAGE_REPOSITORY" --image-ids imageTag="$1" \
        --query 'images[0].imageManifest' --output text) || return
    if [[ $manifest != *application/vnd.docker.distribution.manifest.v2+json* ]]; then
        echo "The manifest of $1 is not Docker's schema 2, which is all that SageMaker takes." >&2
        return 1
    fi
    printf '%s\n' "$manifest"
}

branch_tip() {
    aws codecommit get-branch --repository-name "$SOURCE_REPOSITORY_NAME" --branch-name "$SOURCE_BRANCH" \
        --query branch.commitId --output text
}

# push_image TAG: a commit's image is pushed once. Of two builds of one commit at the same time ECR refuses the later
# one's, whose image is then the first one's.
push_image() {
    docker tag "built/image:$1" "$IMAGE_REPOSITORY_URI:$1" && docker push "$IMAGE_REPOSITORY_URI:$1" && return
    [ -n "$(image_digest "$1")" ] && echo "Another build has pushed $1 meanwhile."
}

# move_latest: of several builds at a time the newest commit decides, whichever ends first. `latest` becomes what the
# branch's tip is by now, if that is built; asked again afterwards, because the tip may have moved meanwhile.
move_latest() {
    local tip wanted
    tip=$(branch_tip) || return
    wanted=$(image_digest "$tip-$KOHYA_SS_VERSION") || return
    if [ -z "$wanted" ]; then
        echo "$SOURCE_BRANCH is at $tip by now: its own build moves latest."
        return
    fi
    if [ "$wanted" = "$(image_digest latest)" ]; then
        echo "latest stays the image of $tip."
    else
        # Another build may move it to the same image at this moment, which ECR calls an error.
        local answer manifest
        manifest=$(image_manifest "$tip-$KOHYA_SS_VERSION") || return
        answer=$(aws ecr put-image --repository-name "$IMAGE_REPOSITORY" --image-tag latest \
            --image-manifest "$manifest" --image-digest "$wanted" 2>&1) ||
            [[ $answer == *ImageAlreadyExistsException* ]] || { printf '%s\n' "$answer" >&2; return 1; }
        echo "latest is $wanted, the image of $tip."
    fi
    [ "$(branch_tip)" = "$tip" ] || move_latest
}
