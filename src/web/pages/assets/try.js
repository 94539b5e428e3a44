// The forms of the API page: sends an operation to this site, with the login of the page, and shows the answer.
for (const details of document.querySelectorAll('.try')) {
  details.hidden = false;
  const form = details.querySelector('form');
  const output = form.querySelector('output');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void send(form, output);
  });
}

async function send(form, output) {
  let address = form.dataset.url;
  const query = new URLSearchParams();
  for (const field of form.querySelectorAll('[data-in]')) {
    if (field.dataset.in === 'path') address = address.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value !== '') query.append(field.name, field.value);
  }
  const body = form.elements.body?.value;
  output.textContent = 'Sending…';
  try {
    const answer = await fetch(query.size === 0 ? address : `${address}?${query}`, {
      method: form.dataset.method,
      ...(body === undefined || body.trim() === '' ? {} : { body, headers: { 'content-type': 'application/json' } }),
    });
    output.textContent = `${answer.status} ${answer.statusText}\n${pretty(await answer.text())}`;
  } catch (error) {
    output.textContent = `Not sent: ${error.message}`;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
