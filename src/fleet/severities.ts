// The conditions that keep a fleet from its work, by name.

/** How serious each condition is. `critical`: no work is done, or promised work is not. `warning`: a person should check. `info`: it resolves by itself. */
export const severities = {
  postgres_away: 'critical',
  postgres_read_only: 'critical',
  not_migrated: 'critical',
  queue_store_away: 'critical',
  queue_store_full: 'critical',
  queue_store_evicts: 'critical',
  no_worker: 'critical',
  queues_differ: 'critical',
  token_refused: 'critical',
  scope_missing: 'critical',
  provider_away: 'warning',
  sagas_unanswered: 'warning',
  steps_hang: 'warning',
  account_full: 'warning',
  sagas_stuck: 'critical',
  sagas_overdue: 'critical',
  reconciler_fails: 'critical',
  steps_unknown: 'critical',
  sagas_unknown: 'critical',
  needs_unmet: 'critical',
  key_missing: 'critical',
  jobs_stand_still: 'critical',
  leases_held: 'critical',
  surplus_held: 'critical',
  surplus_not_destroyed: 'critical',
  outcomes_paused: 'critical',
  queue_paused: 'warning',
  sync_overdue: 'warning',
  users_file_broken: 'warning',
  orphans_unknown: 'warning',
  lease_ended_protected: 'warning',
  outcomes_failing: 'warning',
  budget_used_up: 'info',
} as const;

export type ConditionName = keyof typeof severities;

/** In the order in which they are told. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys are written above
export const conditionNames = Object.keys(severities) as readonly ConditionName[];

export type Severity = (typeof severities)[ConditionName];
