"""`python -m local.embedded_aws`: serve until SIGTERM or SIGINT."""

from local.embedded_aws.server import main

main()
