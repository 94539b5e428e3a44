// What a completed saga hands to its caller, out of its context.
import { z } from 'zod';

/** Outputs of `provision_droplet`. */
export const provisionDropletOutputs = z.object({
  droplet_id: z.int().positive(),
  /** Null where it was asked for without public networking. */
  public_ipv4: z.string().nullable(),
  private_ipv4: z.string().nullable(),
  /** Null where it was asked for without IPv6. */
  public_ipv6: z.string().nullable(),
  /** Id of its row in `arcadia.cloud_resources`. */
  cloud_resource_id: z.string(),
});

export type ProvisionDropletOutputs = z.infer<typeof provisionDropletOutputs>;

/** Outputs of `adopt_droplet`. `cloud_resource_id`: id of its row in `arcadia.cloud_resources`. */
export const adoptDropletOutputs = z.object({ droplet_id: z.int().positive(), cloud_resource_id: z.string() });

export type AdoptDropletOutputs = z.infer<typeof adoptDropletOutputs>;

/** What belonged to a destroyed droplet and still costs money. `usd_per_month`: null where DigitalOcean does not say. */
export const stillBilledSchema = z.object({ kind: z.enum(['volume', 'snapshot', 'volume_snapshot', 'reserved_ip']), id: z.string(), name: z.string(), usd_per_month: z.number().nullable() });

export type StillBilled = z.infer<typeof stillBilledSchema>;

/** Outputs of `destroy_droplet`. */
export const destroyDropletOutputs = z.object({
  droplet_id: z.int().positive(),
  /** What belonged to the droplet and still costs money. Null: it could not be read; missing: nobody looked. */
  still_billed: z.array(stillBilledSchema).nullable().optional(),
});

/** What a rolled-back `provision_droplet` leaves. */
export const provisionDropletRemains = z.object({
  /** Ids of droplets that may be the saga's but do not carry its full id. A person has to check them. */
  unproven_droplets: z.array(z.int()).optional(),
});

/** What a `destroy_droplet` that was cancelled too late has done. */
export const destroyDropletRemains = destroyDropletOutputs.pick({ still_billed: true }).extend({
  /** `already_gone`: not by this saga. */
  destroy_result: z.enum(['destroyed', 'already_gone', 'not_destroyed']).optional(),
});

export type DestroyDropletOutputs = z.infer<typeof destroyDropletOutputs>;
