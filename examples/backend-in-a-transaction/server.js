// A backend of a shop: an order and its droplet are committed together, or not at all.
import Fastify from 'fastify';
import postgres from 'postgres';
import { openClient } from 'arcadia-cloud';

const sql = postgres(process.env.DATABASE_URL);
const arcadia = openClient({ databaseUrl: process.env.DATABASE_URL });
await sql`create table if not exists orders (id bigint generated always as identity primary key, customer text not null, saga_id uuid)`;

const app = Fastify();

app.post('/orders', async (request, reply) => {
  const { customer, size = 's-1vcpu-1gb' } = request.body;
  const order = await sql.begin(async (transaction) => {
    const [{ id }] = await transaction`insert into orders (customer) values (${customer}) returning id`;
    const input = { name: `order-${id}`, region: 'fra1', size, image: 'debian-12-x64' };
    // The order's number is the key: whatever is repeated, it has one droplet.
    const { sagaId } = await arcadia.provisionDroplet(input, { transaction, idempotencyKey: `order-${id}` });
    await transaction`update orders set saga_id = ${sagaId} where id = ${id}`;
    // As any reason to give it up would: neither an order nor a droplet is left.
    if (customer === 'nobody') throw Object.assign(new Error('this customer may not order'), { statusCode: 403 });
    return { id, sagaId };
  });
  return reply.code(201).send(order);
});

app.get('/orders/:id', async (request, reply) => {
  const [order] = await sql`select id, customer, saga_id from orders where id = ${request.params.id}`;
  if (order === undefined) return reply.code(404).send({ error: 'there is no such order' });
  const saga = await arcadia.get(order.saga_id);
  return { id: order.id, customer: order.customer, status: saga?.status, address: saga?.context.public_ipv4 ?? null, why: saga?.error?.message };
});

app.addHook('onClose', async () => {
  await arcadia.close();
  await sql.end();
});
process.once('SIGTERM', () => void app.close());
process.stdout.write(`shop: ${await app.listen({ port: Number(process.env.PORT ?? 8097), host: '127.0.0.1' })}\n`);
