variable "name" {
  description = "What all resources are called after."
  type        = string
  default     = "signald"
}

variable "vpc_id" {
  type = string
}

variable "public_subnet_ids" {
  description = "Where the balancer stands; in two zones at least."
  type        = list(string)
}

variable "private_subnet_ids" {
  description = "Where Redis stands."
  type        = list(string)
}

variable "certificate_arn" {
  description = "The certificate of the clients' host name, in ACM."
  type        = string
}

variable "redis_auth_token" {
  description = "The password of Redis, 16 to 128 printable characters without @, \" and /."
  type        = string
  sensitive   = true
}

variable "alarm_topic_arns" {
  description = "SNS topics that are told of alarms."
  type        = list(string)
  default     = []
}

variable "connections_max" {
  description = "admission.connections_max of one node, times the nodes of one colour."
  type        = number
  default     = 22000
}
