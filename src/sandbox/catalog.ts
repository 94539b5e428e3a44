// The sandbox's catalog: regions, sizes with prices, and images, in the format of DigitalOcean's API. The values resemble
// the real ones but are not kept up to date: nothing may depend on a price.

/** A region in the format of GET /v2/regions. */
export type Region = {
  readonly name: string;
  readonly slug: string;
  readonly features: readonly string[];
  readonly available: boolean;
  readonly sizes: readonly string[];
};

/** A size in the format of GET /v2/sizes: memory in MiB, disk in GiB, transfer in TB, prices in USD. */
export type Size = {
  readonly slug: string;
  readonly memory: number;
  readonly vcpus: number;
  readonly disk: number;
  readonly transfer: number;
  readonly price_monthly: number;
  readonly price_hourly: number;
  readonly regions: readonly string[];
  readonly available: boolean;
  readonly description: string;
  readonly disk_info: readonly { readonly type: string; readonly size: { readonly amount: number; readonly unit: string } }[];
  readonly gpu_info?: {
    readonly count: number;
    readonly model: string;
    readonly vram: { readonly amount: number; readonly unit: string };
  };
};

/** An image in the format of GET /v2/images. `slug` is null for a customer's own image. */
export type Image = {
  readonly id: number;
  readonly name: string;
  readonly type: string;
  readonly distribution: string;
  readonly slug: string | null;
  readonly public: boolean;
  readonly regions: readonly string[];
  readonly created_at: string;
  readonly min_disk_size: number;
  readonly size_gigabytes: number;
  readonly description: string;
  readonly tags: readonly string[];
  readonly status: string;
  readonly error_message: string;
};

const openRegions = ['nyc1', 'nyc2', 'nyc3', 'sfo2', 'sfo3', 'ams3', 'sgp1', 'lon1', 'fra1', 'tor1', 'blr1', 'syd1'];
const gpuRegions = ['nyc2', 'tor1', 'ams3'];

export const sizes: readonly Size[] = [
  size('s-1vcpu-512mb-10gb', 'Basic', 512, 1, 10, 0.5, 4, 0.00595, ['nyc1', 'nyc3', 'sfo3', 'ams3', 'fra1', 'blr1', 'syd1']),
  size('s-1vcpu-1gb', 'Basic', 1024, 1, 25, 1, 6, 0.00893),
  size('s-1vcpu-1gb-amd', 'Basic AMD', 1024, 1, 25, 1, 7, 0.01042),
  size('s-1vcpu-1gb-intel', 'Basic Intel', 1024, 1, 25, 1, 7, 0.01042),
  size('s-1vcpu-2gb', 'Basic', 2048, 1, 50, 2, 12, 0.01786),
  size('s-2vcpu-2gb', 'Basic', 2048, 2, 60, 3, 18, 0.02679),
  size('s-2vcpu-4gb', 'Basic', 4096, 2, 80, 4, 24, 0.03571),
  size('s-4vcpu-8gb', 'Basic', 8192, 4, 160, 5, 48, 0.07143),
  size('s-8vcpu-16gb', 'Basic', 16_384, 8, 320, 6, 96, 0.14286),
  // Listed, but closed to new droplets, like some real sizes.
  { ...size('s-3vcpu-1gb', 'Basic', 1024, 3, 60, 3, 18, 0.02679, []), available: false },
  size('c-2', 'CPU-Optimized', 4096, 2, 25, 4, 42, 0.0625),
  size('c-4', 'CPU-Optimized', 8192, 4, 50, 5, 84, 0.125),
  size('g-2vcpu-8gb', 'General Purpose', 8192, 2, 25, 4, 63, 0.09375),
  size('m-2vcpu-16gb', 'Memory-Optimized', 16_384, 2, 50, 4, 84, 0.125),
  size('so-2vcpu-16gb', 'Storage-Optimized', 16_384, 2, 300, 4, 131, 0.19494, ['nyc1', 'nyc3', 'sfo3', 'ams3', 'fra1']),
  gpuSize('gpu-4000adax1-20gb', 'RTX 4000 Ada GPU 1X', 32_768, 8, 500, 10, 565.44, 0.76, 1, 'nvidia_rtx4000_ada', 20),
  gpuSize('gpu-h100x1-80gb', 'H100 GPU 1X', 245_760, 20, 720, 15, 2522.16, 3.39, 1, 'nvidia_h100', 80),
  gpuSize('gpu-h100x8-640gb', 'H100 GPU 8X', 1_966_080, 160, 2046, 60, 17_796.48, 23.92, 8, 'nvidia_h100', 640),
];

export const regions: readonly Region[] = [
  region('nyc1', 'New York 1'),
  region('nyc2', 'New York 2'),
  region('nyc3', 'New York 3'),
  region('sfo1', 'San Francisco 1'),
  region('sfo2', 'San Francisco 2'),
  region('sfo3', 'San Francisco 3'),
  region('ams3', 'Amsterdam 3'),
  region('sgp1', 'Singapore 1'),
  region('lon1', 'London 1'),
  region('fra1', 'Frankfurt 1'),
  region('tor1', 'Toronto 1'),
  region('blr1', 'Bangalore 1'),
  region('syd1', 'Sydney 1'),
];

export const images: readonly Image[] = [
  baseImage(133_000_001, 'ubuntu-22-04-x64', '22.04 (LTS) x64', 'Ubuntu', 7),
  baseImage(155_133_621, 'ubuntu-24-04-x64', '24.04 (LTS) x64', 'Ubuntu', 7),
  baseImage(139_080_871, 'debian-12-x64', '12 x64', 'Debian', 7),
  baseImage(196_404_107, 'debian-13-x64', '13 x64', 'Debian', 7),
  baseImage(185_512_133, 'fedora-42-x64', '42 x64', 'Fedora', 10),
  baseImage(112_929_540, 'rockylinux-9-x64', '9 x64', 'Rocky Linux', 10),
  baseImage(167_541_022, 'centos-stream-9-x64', '9 Stream x64', 'CentOS', 10),
  { ...baseImage(128_209_870, 'docker-20-04', 'Docker on Ubuntu 22.04', 'Ubuntu', 25), type: 'snapshot' },
  { ...baseImage(171_823_911, 'gpu-h100x1-base', 'NVIDIA AI/ML Ready', 'Ubuntu', 40), type: 'snapshot', regions: gpuRegions },
  {
    ...baseImage(7_555_620, null, 'golden-2026-10', 'Debian', 25),
    type: 'snapshot',
    public: false,
    regions: ['nyc3', 'fra1'],
  },
];

/** Finds a size by slug, ignoring case. */
export function findSize(slug: unknown): Size | undefined {
  return sizes.find((size) => isSlug(size.slug, slug));
}

/** Finds an image by number, by the number as a string, or by slug, ignoring case. Also searches `more`. */
export function findImage(key: unknown, more: readonly Image[] = []): Image | undefined {
  if (key === null || key === '') return undefined;
  return [...images, ...more].find((image) => image.id === key || isSlug(image.slug, key) || String(image.id) === key);
}

/** Returns the id of a region's default VPC. */
export function defaultVpcId(regionSlug: string): string {
  const place = regions.findIndex(({ slug }) => slug === regionSlug);
  return `760e09ef-dc84-11e8-981e-3cfdfeaae${String(Math.max(0, place)).padStart(3, '0')}`;
}

/** Finds a region by slug, ignoring case. */
export function findRegion(slug: unknown): Region | undefined {
  return regions.find((region) => isSlug(region.slug, slug));
}

function isSlug(slug: string | null, key: unknown): boolean {
  return slug !== null && typeof key === 'string' && slug === key.toLowerCase();
}

function size(
  slug: string,
  description: string,
  memory: number,
  vcpus: number,
  disk: number,
  transfer: number,
  monthly: number,
  hourly: number,
  inRegions: readonly string[] = openRegions,
): Size {
  return {
    slug,
    memory,
    vcpus,
    disk,
    transfer,
    price_monthly: monthly,
    price_hourly: hourly,
    regions: inRegions,
    available: true,
    description,
    disk_info: [{ type: 'local', size: { amount: disk, unit: 'gib' } }],
  };
}

function gpuSize(
  slug: string,
  description: string,
  memory: number,
  vcpus: number,
  disk: number,
  transfer: number,
  monthly: number,
  hourly: number,
  count: number,
  model: string,
  vramGib: number,
): Size {
  return {
    ...size(slug, description, memory, vcpus, disk, transfer, monthly, hourly, gpuRegions),
    gpu_info: { count, model, vram: { amount: vramGib, unit: 'gib' } },
  };
}

function region(slug: string, name: string): Region {
  return {
    name,
    slug,
    features: ['backups', 'ipv6', 'metadata', 'install_agent', 'storage', 'image_transfer'],
    // sfo1 is closed to new droplets, like some real regions: it is listed but unavailable.
    available: openRegions.includes(slug),
    sizes: sizes.filter((size) => size.regions.includes(slug)).map((size) => size.slug),
  };
}

function baseImage(id: number, slug: string | null, name: string, distribution: string, minDiskGib: number): Image {
  return {
    id,
    name,
    type: 'base',
    distribution,
    slug,
    public: true,
    regions: openRegions,
    created_at: '2025-06-10T17:42:11Z',
    min_disk_size: minDiskGib,
    size_gigabytes: 0.74,
    description: `${distribution} ${name}`,
    tags: [],
    status: 'available',
    error_message: '',
  };
}
