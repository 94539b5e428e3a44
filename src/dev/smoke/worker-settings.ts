// The settings of a smoke test's worker that it does not take from the environment. The environment may be that of
// production, whose receivers, leases and retention are none of the smoke test's business.

/** Overrides for the environment of each worker. Empty: unset. */
export const workerSettings = {
  LOG_LEVEL: 'info',
  WORKER_METRICS_PORT: '',
  WORKER_SHUTDOWN_MS: '5000',
  // Only the sagas of droplets, and only as the plan says.
  ARCADIA_APP: '',
  DIGITALOCEAN_WHEN_FULL: 'fail',
  REQUESTER_WEIGHTS: '',
  READY_PROBE_ALLOW: '',
  PUBLIC_URL: '',
  LEASE_DEFAULT_S: '',
  LEASE_MAX_S: '',
  LEASE_WARN_S: '',
  // It tells nobody.
  OUTCOME_WEBHOOK_URL: '',
  OUTCOME_WEBHOOK_SECRETS: '',
  OUTCOME_QUEUE: '',
  OUTCOME_NOTIFY: 'false',
  // It deletes no history. These are the longest possible times.
  SAGA_RETENTION_DAYS: '36500',
  AUDIT_RETENTION_DAYS: '36500',
  // It serves no web.
  DASHBOARD_USER: '',
  DASHBOARD_PASSWORD: '',
  DASHBOARD_USERS_FILE: '',
  AUTH_PROXY_HEADER: '',
  AUTH_PROXY_ROLE: '',
  API_TOKENS: '',
} as const;
