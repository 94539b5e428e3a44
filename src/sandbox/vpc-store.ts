// Stores the account's VPCs.
import { defaultVpcId, regions } from './catalog.ts';

/** A VPC in the API's format. */
export type Vpc = Readonly<{ id: string; urn: string; name: string; description: string; region: string; ip_range: string; default: boolean; created_at: string }>;

/** The default VPC of each region. */
export function createVpcs(): Map<string, Vpc> {
  return new Map(
    regions.map(({ slug }, index) => {
      const id = defaultVpcId(slug);
      return [id, { id, urn: `do:vpc:${id}`, name: `default-${slug}`, description: '', region: slug, ip_range: `10.${100 + index}.0.0/20`, default: true, created_at: '2025-01-01T00:00:00Z' }];
    }),
  );
}
