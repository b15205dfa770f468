output "api_url" {
  description = "Where the admin API is."
  value       = module.control.api_url
}

output "api_environment" {
  description = "For your shell, so that holdfast sessions and the like ask this API; HOLDFAST_API_KEY is yours to set."
  value       = "export HOLDFAST_URL=${module.control.api_url}"
}

output "state_environment" {
  description = "For your shell, so that commands of holdfast work on the tables themselves. That needs a role in key_users of the module state."
  value       = join("\n", concat(["export AWS_REGION=${var.region}"], [for k, v in module.state.settings : "export ${k}=${v}"]))
}

output "runbook_environment" {
  description = "For your shell: the names that the commands in the runbooks go by."
  value = join("\n", [
    "export AWS_REGION=${var.region} FLEET=${var.name} TABLES=${module.state.name}",
    "export CLUSTER=${module.worker.cluster_name} SERVICE=${module.worker.service_name} LOG_GROUP=${module.worker.log_group_name}",
    "export FUNCTION=${module.control.function_name} DEAD_LETTERS=${module.control.dead_letter_queue_url}",
  ])
}

output "commands" {
  description = "What one wants to type in the night."
  value = {
    logs    = "aws logs tail ${module.worker.log_group_name} --region ${var.region} --follow"
    workers = "aws ecs list-tasks --region ${var.region} --cluster ${module.worker.cluster_name} --service-name ${module.worker.service_name}"
    restart = "aws ecs update-service --region ${var.region} --cluster ${module.worker.cluster_name} --service ${module.worker.service_name} --force-new-deployment"
    scale   = "aws ecs update-service --region ${var.region} --cluster ${module.worker.cluster_name} --service ${module.worker.service_name} --desired-count 2"
    doctor  = "aws ecs run-task --region ${var.region} ${module.worker.run_task_arguments} --overrides '{\"containerOverrides\":[{\"name\":\"${module.worker.container_name}\",\"command\":[\"doctor\"]}]}'"
  }
}
