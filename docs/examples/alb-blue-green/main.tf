# Blue and green behind an Application Load Balancer. Not run in the tests of signald, which check the syntax and the names of
# the arguments. docs/blue-green.md says how to deploy with it; weigh.sh sets the weights, and deploy.sh goes through them.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

locals {
  colours     = toset(["blue", "green"])
  parties     = 8080 # listen.websocket
  operators   = 8081 # listen.http: health and metrics, never behind the listener
  drain_max_s = 290  # drain.stop_timeout_s in signald.toml
}

# --- who reaches what ----------------------------------------------------------------------------------------------------

resource "aws_security_group" "balancer" {
  name   = "${var.name}-balancer"
  vpc_id = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  security_group_id = aws_security_group.balancer.id
  description       = "Clients and workers"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each = toset([tostring(local.parties), tostring(local.operators)])

  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
}

resource "aws_security_group" "node" {
  name   = "${var.name}-node"
  vpc_id = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "node" {
  for_each = toset([tostring(local.parties), tostring(local.operators)])

  security_group_id            = aws_security_group.node.id
  description                  = "The balancer: connections, and health checks"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
}

resource "aws_vpc_security_group_egress_rule" "node" {
  security_group_id = aws_security_group.node.id
  description       = "Redis, and what else the configuration names"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

# --- the balancer --------------------------------------------------------------------------------------------------------

resource "aws_lb" "signald" {
  name               = var.name
  load_balancer_type = "application"
  subnets            = var.public_subnet_ids
  security_groups    = [aws_security_group.balancer.id]

  # Silence after which the balancer cuts: above signald's pings and the wait for their answers, 40 s together.
  idle_timeout = 120

  # A header that two parsers may read differently stops here.
  drop_invalid_header_fields = true
}

resource "aws_lb_target_group" "colour" {
  for_each = local.colours

  name        = "${var.name}-${each.key}"
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "HTTP"
  port        = local.parties

  # A target that leaves keeps its connections for that long: a drain ends before, and leaves none.
  deregistration_delay = 300

  # Ready only while Redis answers the node. In all, 10 s until a node that has lost Redis gets no new party.
  health_check {
    port                = tostring(local.operators)
    path                = "/readyz"
    matcher             = "200"
    interval            = 5
    timeout             = 2
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  # A party resumes at any node. A cookie would send it back to the node that it was told to leave.
  stickiness {
    type    = "lb_cookie"
    enabled = false
  }

  lifecycle {
    precondition {
      condition     = local.drain_max_s < 300
      error_message = "A drain must end before the balancer cuts what is left."
    }
  }
}

resource "aws_lb_listener" "public" {
  load_balancer_arn = aws_lb.signald.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type = "forward"

    forward {
      target_group {
        arn    = aws_lb_target_group.colour["blue"].arn
        weight = 100
      }

      target_group {
        arn    = aws_lb_target_group.colour["green"].arn
        weight = 0
      }

      stickiness {
        enabled  = false
        duration = 1
      }
    }
  }

  # The weights are weigh.sh's: it changes them within a second, and a later apply leaves them alone.
  lifecycle {
    ignore_changes = [default_action]
  }
}
