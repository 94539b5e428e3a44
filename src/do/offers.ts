// What DigitalOcean offers for new droplets: regions, sizes with prices, and images. Each process caches the whole lists.
import type { DigitalOceanClient } from './client.ts';
import type { ReadList } from './kept-list.ts';
import { keepList } from './kept-list.ts';
import type { Image, Region, Size } from './schemas.ts';

export type Offers = Readonly<{
  regions: ReadList<Region>;
  sizes: ReadList<Size>;
  images: ReadList<Image>;
}>;

/** Creates the lists of one process. Its functions reject like the client's. Failed reads are not cached. */
export function createOffers(client: Pick<DigitalOceanClient, 'listRegions' | 'listSizes' | 'listImages'>): Offers {
  return { regions: keepList(() => client.listRegions()), sizes: keepList(() => client.listSizes()), images: keepList(() => client.listImages()) };
}
