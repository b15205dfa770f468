# That the example is whole. The tests in terraform/contract compare what it makes
# with the program.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
  }
}

# As AWS would give them, so that policies can be read.
override_resource {
  target = module.state.aws_dynamodb_table.fleet
  values = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/holdfast-fleet" }
}

override_resource {
  target = module.state.aws_dynamodb_table.signal
  values = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/holdfast-signal" }
}

override_resource {
  target = module.state.aws_s3_bucket.vault
  values = { arn = "arn:aws:s3:::holdfast-vault", id = "holdfast-vault" }
}

override_resource {
  target = module.state.aws_kms_key.master
  values = { arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab" }
}

variables {
  image      = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/holdfast:v1"
  lambda_zip = "versions.tf" # any file does
  api_keys   = { me = { role = "admin", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
}

run "made" {
  assert {
    condition     = output.api_environment == "export HOLDFAST_URL=${output.api_url}"
    error_message = "the command line would ask another API"
  }
  assert {
    condition     = strcontains(output.state_environment, "export HOLDFAST_STATE=dynamodb:holdfast")
    error_message = "the command line would ask other tables"
  }
  assert {
    condition     = strcontains(output.runbook_environment, "export CLUSTER=holdfast SERVICE=holdfast-worker LOG_GROUP=/holdfast/holdfast/worker") && strcontains(output.runbook_environment, "FUNCTION=holdfast-control DEAD_LETTERS=")
    error_message = "the runbooks would look elsewhere"
  }
  assert {
    condition     = strcontains(output.commands.doctor, "assignPublicIp=ENABLED") && strcontains(output.commands.doctor, "--cluster holdfast ")
    error_message = "doctor must run where the workers do"
  }
}

run "with_a_webhook" {
  command = plan
  variables {
    webhook_url        = "https://hooks.example.com/x"
    webhook_secret_arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/holdfast/webhook"
    keep               = false
  }
}
