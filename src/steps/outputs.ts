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

/** Outputs of `destroy_droplet`. */
export const destroyDropletOutputs = z.object({ droplet_id: z.int().positive() });

export type DestroyDropletOutputs = z.infer<typeof destroyDropletOutputs>;
