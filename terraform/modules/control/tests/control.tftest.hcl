# Who comes in, what the function is told and may do, and which values are refused.
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

variables {
  name         = "shop"
  lambda_s3    = { bucket = "builds", key = "lambda-arm64.zip" }
  cluster_arn  = "arn:aws:ecs:eu-west-1:123456789012:cluster/shop"
  service_name = "shop-worker"
  state = {
    fleet_table_arn  = "arn:aws:dynamodb:eu-west-1:123456789012:table/shop-fleet"
    signal_table_arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/shop-signal"
    bucket_arn       = "arn:aws:s3:::shop-vault"
    vault_prefix     = "vault"
    key_arn          = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd"
    settings = {
      HOLDFAST_STATE      = "dynamodb:shop"
      HOLDFAST_VAULT      = "s3://shop-vault/vault"
      HOLDFAST_MASTER_KEY = "awskms:arn:aws:kms:eu-west-1:123456789012:key/1234abcd"
    }
  }
}

run "keys" {
  command = plan
  variables {
    api_keys = {
      ops    = { role = "admin", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
      viewer = { role = "viewer", sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
    }
  }

  assert {
    condition     = aws_apigatewayv2_route.all.authorization_type == "NONE" && one(aws_lambda_function.admin.environment).variables["HOLDFAST_GATEWAY_AUTH"] == "keys"
    error_message = "the function must ask for keys"
  }
  assert {
    condition     = one(aws_lambda_function.admin.environment).variables["HOLDFAST_API_KEYS"] == "ops:admin:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855,viewer:viewer:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    error_message = "the keys are written otherwise than the function reads them"
  }
  assert {
    condition     = aws_lambda_function.admin.runtime == "provided.al2023" && aws_lambda_function.admin.handler == "bootstrap" && aws_lambda_function.admin.architectures == tolist(["arm64"])
    error_message = "the runtime is another"
  }
  assert {
    condition     = aws_apigatewayv2_integration.function.payload_format_version == "2.0" && aws_apigatewayv2_integration.function.timeout_milliseconds == 30000
    error_message = "the function reads payload format 2.0"
  }
  assert {
    condition     = one(aws_apigatewayv2_stage.default.default_route_settings).throttling_rate_limit == 50 && one(aws_apigatewayv2_stage.default.default_route_settings).throttling_burst_limit == 100
    error_message = "requests must be bounded"
  }
  assert {
    condition = jsondecode(aws_cloudwatch_event_rule.stopped.event_pattern) == {
      source      = ["aws.ecs"]
      detail-type = ["ECS Task State Change"]
      detail = {
        clusterArn = ["arn:aws:ecs:eu-west-1:123456789012:cluster/shop"]
        group      = ["service:shop-worker"]
        lastStatus = ["STOPPED"]
      }
    }
    error_message = "the function must hear of its workers' ends alone"
  }
  assert {
    condition     = aws_cloudwatch_event_rule.sweep.schedule_expression == "rate(1 minute)"
    error_message = "CloudWatch has one minute in the singular"
  }
  assert {
    condition     = aws_sqs_queue.failed.sqs_managed_sse_enabled && aws_sqs_queue.failed.name == "shop-control-failed"
    error_message = "failed events must be kept, encrypted"
  }
  assert {
    condition     = { for k, p in aws_lambda_permission.events : k => p.principal } == { task-stopped = "events.amazonaws.com", sweep = "events.amazonaws.com" } && aws_lambda_permission.api.principal == "apigateway.amazonaws.com"
    error_message = "who may invoke the function writes who the caller is"
  }
}

run "iam" {
  command = plan
  variables {
    authorizer    = "iam"
    sweep_minutes = 5
    iam_roles = [
      { arn = "arn:aws:sts::123456789012:assumed-role/admins/*", role = "admin" },
      { arn = "arn:aws:iam::123456789012:user/ada", role = "viewer" },
    ]
  }

  assert {
    condition     = aws_apigatewayv2_route.all.authorization_type == "AWS_IAM" && one(aws_lambda_function.admin.environment).variables["HOLDFAST_IAM_ROLES"] == "arn:aws:sts::123456789012:assumed-role/admins/*=admin,arn:aws:iam::123456789012:user/ada=viewer"
    error_message = "callers must sign, and be known"
  }
  assert {
    condition     = !contains(keys(one(aws_lambda_function.admin.environment).variables), "HOLDFAST_API_KEYS")
    error_message = "keys must not count beside IAM"
  }
  assert {
    condition     = aws_cloudwatch_event_rule.sweep.schedule_expression == "rate(5 minutes)"
    error_message = "the sweep must come when it is told to"
  }
}

run "jwt" {
  command = plan
  variables {
    authorizer = "jwt"
    jwt        = { issuer = "https://login.example.com", audience = ["holdfast"] }
  }

  assert {
    condition     = aws_apigatewayv2_route.all.authorization_type == "JWT" && one(aws_apigatewayv2_authorizer.jwt[0].jwt_configuration).issuer == "https://login.example.com" && one(aws_lambda_function.admin.environment).variables["HOLDFAST_GATEWAY_AUTH"] == "jwt"
    error_message = "callers must bring a token of the issuer"
  }
}

run "roles" {
  variables {
    authorizer = "jwt"
    jwt        = { issuer = "https://login.example.com", audience = ["holdfast"] }
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.key.policy).Statement : s.Condition.StringEquals["kms:EncryptionContext:holdfast:partition"] if s.Sid == "FleetKeyset"]) == "FLEET"
    error_message = "the function must not unwrap the keysets of sessions"
  }
  assert {
    condition     = alltrue(flatten([for p in [aws_iam_role_policy.state, aws_iam_role_policy.key, aws_iam_role_policy.function] : [for s in jsondecode(p.policy).Statement : !contains(flatten([s.Resource]), "*")]]))
    error_message = "the function must reach its own alone"
  }
  assert {
    condition     = aws_iam_role.function.name == "shop-control"
    error_message = "the key's policy knows the role by this name"
  }
}

run "file" {
  command = plan
  variables {
    lambda_s3    = null
    lambda_zip   = "versions.tf" # any file does
    architecture = "x86_64"
    authorizer   = "jwt"
    jwt          = { issuer = "https://login.example.com", audience = ["holdfast"] }
  }

  assert {
    condition     = aws_lambda_function.admin.source_code_hash == filebase64sha256("versions.tf") && aws_lambda_function.admin.architectures == tolist(["x86_64"])
    error_message = "a change of the file must be a change of the function"
  }
}

run "nobody_could_come_in" {
  command         = plan
  expect_failures = [var.api_keys]
}

run "no_function" {
  command = plan
  variables {
    lambda_s3  = null
    authorizer = "jwt"
    jwt        = { issuer = "https://login.example.com", audience = ["holdfast"] }
  }
  expect_failures = [var.lambda_zip]
}

run "file_that_is_not_there" {
  command = plan
  variables {
    lambda_s3  = null
    lambda_zip = "dist/nowhere.zip"
    api_keys   = { ops = { role = "admin", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
  }
  expect_failures = [var.lambda_zip]
}

run "iam_without_roles" {
  command = plan
  variables {
    authorizer = "iam"
  }
  expect_failures = [var.iam_roles]
}

run "iam_of_any_account" {
  command = plan
  variables {
    authorizer = "iam"
    iam_roles  = [{ arn = "arn:aws:sts::*:assumed-role/admins/*", role = "admin" }]
  }
  expect_failures = [var.iam_roles]
}

run "jwt_without_issuer" {
  command = plan
  variables {
    authorizer = "jwt"
  }
  expect_failures = [var.jwt]
}

run "jwt_in_the_clear" {
  command = plan
  variables {
    authorizer = "jwt"
    jwt        = { issuer = "http://login.example.com", audience = ["holdfast"] }
  }
  expect_failures = [var.jwt]
}

run "key_that_is_not_hashed" {
  command = plan
  variables {
    api_keys = { ops = { role = "admin", sha256 = "hf_secret" } }
  }
  expect_failures = [var.api_keys]
}

run "setting_of_the_module" {
  command = plan
  variables {
    api_keys    = { ops = { role = "admin", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
    environment = { HOLDFAST_GATEWAY_AUTH = "iam" }
  }
  expect_failures = [var.environment]
}

run "bad_values" {
  command = plan
  variables {
    api_keys             = { ops = { role = "admin", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
    architecture         = "ARM64"
    memory               = 64
    timeout              = 3
    reserved_concurrency = 1
    sweep_minutes        = 0
    throttle_rate        = 0
    environment          = { PATH = "/" }
  }
  expect_failures = [
    var.architecture, var.memory, var.timeout, var.reserved_concurrency, var.sweep_minutes, var.throttle_rate, var.environment,
  ]
}

run "burst_below_rate" {
  command = plan
  variables {
    api_keys       = { ops = { role = "admin", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } }
    throttle_burst = 10
  }
  expect_failures = [var.throttle_burst]
}
