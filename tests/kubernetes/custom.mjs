// Checks objects that are no part of Kubernetes itself against their schemas: a JSON list on stdin, one line for each that is
// wrong on stdout. A kind without a schema is wrong too.
import { readFileSync } from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { PodMonitor, PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { HTTPRoute, ScaledObject, PodMonitor, PrometheusRule, ServiceMonitor };

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const Kind = kinds[object.kind];
  try {
    if (!Kind || Kind.apiVersion !== object.apiVersion) throw new Error(`there is no schema of ${object.apiVersion}`);
    new Kind(object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata?.name}: ${error.message}`);
  }
}
