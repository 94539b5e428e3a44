// The longest lease that a droplet may have, for every place that accepts one: the configuration, the input of a saga, HTTP, the pages
// and the command line. The SQL function arcadia.renew_lease has the same bound.

/** Seconds: 366 days. */
export const MAX_LEASE_S = 31_622_400;
