// The service of the example, in memory: names, accounts and pages. It prints its address. GET /state shows what there is.
import { createServer } from 'node:http';

const names = new Map();
const accounts = new Map();
const pages = new Map();
let lastId = 0;

const routes = {
  'PUT /names/:key': (key, { owner }) => {
    if ((names.get(key) ?? owner) !== owner) return [409, { error: `the name ${key} is taken` }];
    names.set(key, owner);
    return [200, { owner }];
  },
  'GET /names/:key': (key, _body, query) => (names.get(key) === query.get('owner') ? [200, { owner: names.get(key) }] : [404, {}]),
  'DELETE /names/:key': (key, _body, query) => {
    if (names.get(key) === query.get('owner')) names.delete(key);
    return [200, {}];
  },
  'POST /accounts': (_key, body) => {
    const account = { ...body, id: (lastId += 1) };
    accounts.set(account.id, account);
    return [201, account];
  },
  'GET /accounts': (_key, _body, query) => {
    const found = [...accounts.values()].find(({ reference }) => reference === query.get('reference'));
    return found === undefined ? [404, {}] : [200, found];
  },
  'DELETE /accounts/:key': (key) => [accounts.delete(Number(key)) ? 200 : 404, {}],
  'PUT /pages/:key': (key, body) => {
    // A page that cannot be published: to see a saga rolled back.
    if (key.startsWith('forbidden')) return [422, { error: 'this page cannot be published' }];
    pages.set(key, body);
    return [200, body];
  },
  'GET /pages/:key': (key, _body, query) => (pages.get(key)?.reference === query.get('reference') ? [200, pages.get(key)] : [404, {}]),
  'DELETE /pages/:key': (key) => [pages.delete(key) ? 200 : 404, {}],
  'GET /state': () => [200, { names: [...names.keys()], accounts: [...accounts.values()], pages: [...pages.keys()] }],
};

async function answer(request, response) {
  const url = new URL(request.url, 'http://service');
  const [, room, key] = url.pathname.split('/');
  let body = '';
  for await (const chunk of request) body += chunk;
  const route = routes[`${request.method} /${room}${key === undefined ? '' : '/:key'}`];
  const [status, told] = route === undefined ? [405, { error: 'not known' }] : route(key, body === '' ? {} : JSON.parse(body), url.searchParams);
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(told));
}

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(process.env.PORT ?? 8099), '127.0.0.1', () => process.stdout.write(`service: http://127.0.0.1:${server.address().port}\n`));
