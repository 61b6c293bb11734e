output "listener_arn" {
  description = "LISTENER of weigh.sh."
  value       = aws_lb_listener.public.arn
}

output "target_groups" {
  description = "TARGETS_BLUE and TARGETS_GREEN of weigh.sh; register the addresses of each colour's nodes there."
  value       = { for colour, group in aws_lb_target_group.colour : colour => group.arn }
}

output "node_security_group_id" {
  description = "Of each node."
  value       = aws_security_group.node.id
}

output "redis_address" {
  description = "For store.url_file: rediss://:PASSWORD@ADDRESS:6379/0"
  value       = aws_elasticache_replication_group.redis.primary_endpoint_address
}
