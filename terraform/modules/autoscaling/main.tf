# As many workers as there are sessions for: ECS is told by target tracking on
# SessionsPerWorker, which the sweep writes once a minute. It is all the sessions that
# should be had, whether somebody has them or not, by the workers that will stay, so
# sessions for which there is no room call for workers, and it falls when workers
# come.
#
# What happens at a scale-in: ECS picks a task and sends it SIGTERM. The worker stops
# claiming and gives its sessions to the others one by one, each prepared there before
# it is closed here (a gap of about a login), for up to drain_seconds of the module
# worker; stop_timeout, 120 s at most on Fargate, ends it whatever is left, and the
# others take that as after a death. A worker has no more sessions than can be given
# away in that time (see capacity). ECS knows nothing of a worker's load: it may pick
# the fullest one.
#
# So scaling in moves sessions twice, to the others and then to new workers, if it
# comes too soon: it waits for scale_in_cooldown after each change, and target tracking
# by itself for 15 minutes below nine tenths of the target. Out is fast: a new worker
# takes sessions within seconds, and 30 s later receives some from the others. While a
# deployment is under way nothing is scaled in, so that old and new workers side by
# side do not look like too many.
#
# The module worker must have autoscaled = true, or each apply would set its count
# back. workers_wanted of the module observability is then min.
#
# Target tracking makes two alarms of its own, at $0.10 a month each.

resource "aws_appautoscaling_target" "workers" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${var.worker.cluster_name}/${var.worker.service_name}"
  min_capacity       = var.min
  max_capacity       = var.max
  tags               = merge({ "holdfast:fleet" = var.name }, var.tags)
}

resource "aws_appautoscaling_policy" "sessions" {
  name               = "${var.name}-sessions-per-worker"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.workers.service_namespace
  scalable_dimension = aws_appautoscaling_target.workers.scalable_dimension
  resource_id        = aws_appautoscaling_target.workers.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.sessions_per_worker
    scale_in_cooldown  = var.scale_in_cooldown
    scale_out_cooldown = var.scale_out_cooldown
    disable_scale_in   = !var.scale_in

    customized_metric_specification {
      namespace   = "Holdfast"
      metric_name = "SessionsPerWorker"
      statistic   = "Maximum"
      unit        = "Count"

      dimensions {
        name  = "Fleet"
        value = var.state.name
      }
    }
  }
}
