output "api_url" {
  description = "Where the admin API is, for HOLDFAST_URL."
  value       = aws_apigatewayv2_api.admin.api_endpoint
}

output "api_id" {
  description = "Id of the HTTP API."
  value       = aws_apigatewayv2_api.admin.id
}

output "api_execution_arn" {
  description = "What follows by /* is the resource of execute-api:Invoke, which callers need with the authorizer iam."
  value       = aws_apigatewayv2_api.admin.execution_arn
}

output "function_name" {
  description = "Name of the function."
  value       = aws_lambda_function.admin.function_name
}

output "function_arn" {
  description = "ARN of the function. Whoever may invoke it writes the word of API Gateway himself: keep that to API Gateway and EventBridge."
  value       = aws_lambda_function.admin.arn
}

output "role_arn" {
  description = "ARN of the function's role."
  value       = aws_iam_role.function.arn
}

output "log_group_name" {
  description = "Name of the function's log group, which its metrics are in as well."
  value       = aws_cloudwatch_log_group.function.name
}

output "api_log_group_name" {
  description = "Name of the access log's group."
  value       = aws_cloudwatch_log_group.api.name
}

output "dead_letter_queue_name" {
  description = "Name of the queue of events that failed: something in it is an alarm."
  value       = aws_sqs_queue.failed.name
}

output "dead_letter_queue_arn" {
  description = "ARN of the queue of events that failed."
  value       = aws_sqs_queue.failed.arn
}

output "dead_letter_queue_url" {
  description = "URL of the queue of events that failed."
  value       = aws_sqs_queue.failed.url
}
