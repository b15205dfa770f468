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
  image              = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/holdfast:v1"
  lambda_zip         = "versions.tf" # any file does
  webhook_url        = "https://hooks.example.com/x"
  webhook_secret_arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:holdfast-abc123"
  jwt                = { issuer = "https://login.example.com", audience = ["holdfast"] }
}

run "made" {
  assert {
    condition     = strcontains(output.commands.doctor, "assignPublicIp=DISABLED")
    error_message = "workers must be in private subnets"
  }
  assert {
    condition     = strcontains(output.ask, "Authorization: Bearer")
    error_message = "callers bring a token"
  }
}

run "made_with_iam" {
  variables {
    jwt       = null
    iam_roles = [{ arn = "arn:aws:sts::123456789012:assumed-role/operators/*", role = "operator" }]
  }

  assert {
    condition     = strcontains(output.ask, "--aws-sigv4") && endswith(output.ask, "${output.api_url}/api/sessions")
    error_message = "without an identity provider requests are signed"
  }
}
