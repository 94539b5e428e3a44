// Converts DigitalOcean's droplets for the inventory.
import type { Droplet } from '../do/schemas.ts';
import type { SeenResource } from '../inventory/resources.ts';

/** Converts a droplet to an inventory row. `new` becomes `provisioning`; other states are unchanged. */
export function toCloudResource(droplet: Droplet): SeenResource {
  return {
    provider: 'digitalocean',
    kind: 'droplet',
    providerId: String(droplet.id),
    name: droplet.name,
    region: droplet.region?.slug ?? null,
    status: droplet.status === 'new' ? 'provisioning' : droplet.status,
    sizeSlug: droplet.size_slug,
    tags: droplet.tags,
    // JSON omits undefined values.
    attrs: {
      memory_mb: droplet.memory ?? undefined,
      vcpus: droplet.vcpus ?? undefined,
      disk_gb: droplet.disk ?? undefined,
      networks: droplet.networks ?? undefined,
      do_created_at: droplet.created_at ?? undefined,
    },
  };
}
