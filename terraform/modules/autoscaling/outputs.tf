output "min" {
  description = "The fewest workers: workers_wanted of the module observability."
  value       = aws_appautoscaling_target.workers.min_capacity
}

output "max" {
  description = "The most workers."
  value       = aws_appautoscaling_target.workers.max_capacity
}

output "policy_arn" {
  description = "ARN of the policy."
  value       = aws_appautoscaling_policy.sessions.arn
}
