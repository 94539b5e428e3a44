// A droplet, as DigitalOcean shows it, in the words of the inventory.
import type { Droplet } from '../do/schemas.ts';
import type { SeenResource } from '../inventory/resources.ts';

/** Turns a droplet into a row of the inventory. `new` is kept as `provisioning`; other states as they are. */
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
    // JSON leaves out what is undefined.
    attrs: {
      memory_mb: droplet.memory ?? undefined,
      vcpus: droplet.vcpus ?? undefined,
      disk_gb: droplet.disk ?? undefined,
      networks: droplet.networks ?? undefined,
      do_created_at: droplet.created_at ?? undefined,
    },
  };
}
