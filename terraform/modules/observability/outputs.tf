output "topic_arn" {
  description = "ARN of the topic that alarms go to."
  value       = local.topics[0]
}

output "alarm_names" {
  description = "Names of the alarms in CloudWatch, by what they are about."
  value       = { for key, alarm in aws_cloudwatch_metric_alarm.this : key => alarm.alarm_name }
}

output "alarm_arns" {
  description = "ARNs of the alarms, by what they are about: for composite alarms of your own."
  value       = { for key, alarm in aws_cloudwatch_metric_alarm.this : key => alarm.arn }
}

output "dashboard_name" {
  description = "Name of the dashboard."
  value       = aws_cloudwatch_dashboard.fleet.dashboard_name
}
