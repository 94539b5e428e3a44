// Read-only routes: account, regions, sizes, images.
import type { Answer, Call } from './answer.ts';
import { notFound, pageAnswer } from './answer.ts';
import type { Image } from './catalog.ts';
import { findImage, images, regions, sizes } from './catalog.ts';
import { dropletLimit, snapshotImages, type World } from './world.ts';

/** GET /v2/account */
export function getAccount(world: World): Answer {
  return {
    status: 200,
    body: {
      account: {
        droplet_limit: dropletLimit(world),
        floating_ip_limit: 5,
        email: 'sandbox@example.com',
        name: 'Sandbox',
        uuid: 'b6fr89dbf6d9156cace5f3c78dc9851d957381ef',
        email_verified: true,
        status: 'active',
        status_message: '',
        team: { uuid: '5df3e3004a17e242b7c20ca6c9fc25b701a47ece', name: 'My Team' },
      },
    },
  };
}

/** GET /v2/regions */
export function listRegions(world: World, call: Call): Answer {
  return pageAnswer(call, 'regions', regions, (region) => region, world.faultBox.settings.nextHost);
}

/** GET /v2/sizes */
export function listSizes(world: World, call: Call): Answer {
  return pageAnswer(call, 'sizes', sizes, (size) => size, world.faultBox.settings.nextHost);
}

/** GET /v2/volumes. The sandbox has none. */
export function listVolumes(world: World, call: Call): Answer {
  return pageAnswer(call, 'volumes', [], (volume) => volume, world.faultBox.settings.nextHost);
}

/** GET /v2/images, with `type` (distribution or application) and `private`. */
export function listImages(world: World, call: Call): Answer {
  const found = [...images, ...snapshotImages(world)].filter((image) => isWantedImage(image, call));
  return pageAnswer(call, 'images', found, (image) => image, world.faultBox.settings.nextHost);
}

/** GET /v2/images/:key, by number or slug. */
export function getImage(world: World, call: Call): Answer {
  const image = findImage(call.params['key'], snapshotImages(world));
  return image === undefined ? notFound(call) : { status: 200, body: { image } };
}

function isWantedImage(image: Image, call: Call): boolean {
  const { type, private: onlyPrivate, tag_name: tag } = call.query;
  if (onlyPrivate === 'true' && image.public) return false;
  if (type === 'distribution' && image.type !== 'base') return false;
  if (type === 'application' && (image.type !== 'snapshot' || !image.public)) return false;
  return tag === undefined || image.tags.includes(tag);
}
