# What CloudWatch sees of the balancer. What only a node knows (the lag of the backplane, its own 5xx) rings in Prometheus:
# k8s/base/prometheusrule.yaml. deploy.sh rolls back when one of these alarms rings.

locals {
  balancer = { LoadBalancer = aws_lb.signald.arn_suffix }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-5xx"
  alarm_description   = "More than 1 % of the requests, handshakes included, are answered 5xx: docs/runbooks/signald.md, SignaldApiErrors"
  alarm_actions       = var.alarm_topic_arns
  comparison_operator = "GreaterThanThreshold"
  threshold           = 1
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"

  metric_query {
    id          = "share"
    expression  = "IF(requests > 20, 100 * (FILL(balancer, 0) + FILL(nodes, 0)) / requests, 0)"
    label       = "5xx in 100 requests"
    return_data = true
  }

  metric_query {
    id = "requests"

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "RequestCount"
      dimensions  = local.balancer
      period      = 60
      stat        = "Sum"
    }
  }

  metric_query {
    id = "balancer"

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HTTPCode_ELB_5XX_Count"
      dimensions  = local.balancer
      period      = 60
      stat        = "Sum"
    }
  }

  metric_query {
    id = "nodes"

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HTTPCode_Target_5XX_Count"
      dimensions  = local.balancer
      period      = 60
      stat        = "Sum"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "connections" {
  alarm_name          = "${var.name}-connections"
  alarm_description   = "Nearly as many connections as the nodes of one colour take: docs/runbooks/signald.md, SignaldNodeFull"
  alarm_actions       = var.alarm_topic_arns
  namespace           = "AWS/ApplicationELB"
  metric_name         = "ActiveConnectionCount"
  dimensions          = local.balancer
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  # The balancer counts both halves of each connection.
  threshold          = 2 * 0.8 * var.connections_max
  treat_missing_data = "notBreaching"
}

resource "aws_cloudwatch_metric_alarm" "no_node" {
  alarm_name          = "${var.name}-no-node"
  alarm_description   = "No node of either colour is ready: docs/runbooks/signald.md, SignaldStoreAway"
  alarm_actions       = var.alarm_topic_arns
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = 2
  treat_missing_data  = "breaching"

  metric_query {
    id          = "ready"
    expression  = "FILL(blue, 0) + FILL(green, 0)"
    label       = "Nodes that are ready"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = aws_lb_target_group.colour

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = "HealthyHostCount"
        dimensions  = merge(local.balancer, { TargetGroup = metric_query.value.arn_suffix })
        period      = 60
        stat        = "Minimum"
      }
    }
  }
}
