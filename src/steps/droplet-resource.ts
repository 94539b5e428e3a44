// A droplet, as DigitalOcean shows it, in the words of the inventory.
import type { Droplet } from '../do/schemas.ts';
import type { CloudResource } from '../inventory/resources.ts';

/** Turns a droplet into a row of the inventory. `new` is kept as `provisioning`; other states as they are. */
export function toCloudResource(droplet: Droplet): CloudResource {
  return {
    provider: 'digitalocean',
    kind: 'droplet',
    providerId: String(droplet.id),
    name: droplet.name,
    region: droplet.region.slug,
    status: droplet.status === 'new' ? 'provisioning' : droplet.status,
    sizeSlug: droplet.size_slug,
    tags: droplet.tags,
    attrs: {
      memory_mb: droplet.memory,
      vcpus: droplet.vcpus,
      disk_gb: droplet.disk,
      networks: { v4: droplet.networks.v4, v6: droplet.networks.v6 },
      do_created_at: droplet.created_at,
    },
  };
}
