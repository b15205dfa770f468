output "cluster_name" {
  description = "Name of the ECS cluster."
  value       = local.cluster_name
}

output "cluster_arn" {
  description = "ARN of the ECS cluster."
  value       = local.cluster_arn
}

output "service_name" {
  description = "Name of the ECS service."
  value       = local.service.name
}

output "container_name" {
  description = "Name of the worker's container in its task."
  value       = local.container
}

output "task_definition_arn" {
  description = "ARN of the task definition, with its revision."
  value       = aws_ecs_task_definition.worker.arn
}

output "task_role_arn" {
  description = "ARN of the role that workers have."
  value       = aws_iam_role.task.arn
}

output "execution_role_arn" {
  description = "ARN of the role that ECS starts workers with."
  value       = aws_iam_role.execution.arn
}

output "security_group_id" {
  description = "Id of the workers' security group, which lets nothing in."
  value       = aws_security_group.worker.id
}

output "log_group_name" {
  description = "Name of the workers' log group."
  value       = aws_cloudwatch_log_group.worker.name
}

output "log_group_arn" {
  description = "ARN of the workers' log group."
  value       = aws_cloudwatch_log_group.worker.arn
}

output "run_task_arguments" {
  description = "Arguments of aws ecs run-task that run a command of holdfast beside the workers, as they are; see the examples' outputs."
  value = join(" ", [
    "--cluster ${local.cluster_name}", "--launch-type FARGATE", "--task-definition ${aws_ecs_task_definition.worker.family}",
    "--network-configuration 'awsvpcConfiguration={subnets=[${join(",", var.subnet_ids)}],securityGroups=[${aws_security_group.worker.id}],assignPublicIp=${var.assign_public_ip ? "ENABLED" : "DISABLED"}}'",
  ])
}
