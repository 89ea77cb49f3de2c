// Uses the page as a reader would, and leaves what came of it in an element named probe.
(async () => {
  const by = id => document.getElementById(id);
  const wait = time => new Promise(done => setTimeout(done, time));
  const set = (id, value, kind) => { by(id).value = value; by(id).dispatchEvent(new Event(kind)); };
  const cards = () => [...document.querySelectorAll('.card')];
  const answer = {};

  const table = document.querySelector('#ranks') || document.querySelector('table.sortable');
  const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.includes('parameters'));
  const column = () => [...table.tBodies[0].rows].map(row => Number(row.cells[at].dataset.value));
  const click = () => table.tHead.rows[0].cells[at].querySelector('button').click();
  click();
  answer.descending = column();
  click();
  answer.ascending = column();

  answer.all = Number(by('count').textContent.split(' ')[0]);
  set('sort', 'low', 'change');
  set('whose', '0', 'change');
  const name = by('whose').selectedOptions[0].textContent;
  const score = card => {
    const said = [...card.querySelectorAll('.said')].find(said => said.querySelector('.who').textContent.includes(name));
    return Number(said.querySelector('b').textContent);
  };
  answer.worst_first = cards().map(score);

  // A word that some of the images have.
  for (const word of ['red', 'blue', 'green', 'circle', 'square', 'three']) {
    set('word', word, 'input');
    await wait(400);
    answer.word = word;
    answer.filtered = Number(by('count').textContent.split(' ')[0]);
    if (answer.filtered && answer.filtered < answer.all) break;
  }
  answer.filtered_cards = cards().length;
  const has = card => new RegExp('\\b' + answer.word + '\\b', 'i').test(card.textContent);
  answer.marked = cards().filter(has).length;
  set('word', 'bold', 'input');
  await wait(400);
  answer.markup = cards().filter(card => card.textContent.includes('<b id=bold>bold</b>')).length;
  set('word', '', 'input');
  await wait(400);

  const token = document.querySelector('.words span');
  token.dispatchEvent(new Event('pointerenter'));
  const canvas = token.closest('.card').querySelector('canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  answer.drawn = [pixels.filter(value => value).length / pixels.length];

  answer.ran = 'ran' in window;
  answer.bold = !!by('bold');
  answer.outside = performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith('data:'));
  answer.errors = window.errors;
  const pre = document.createElement('pre');
  pre.id = 'probe';
  pre.textContent = JSON.stringify(answer);
  document.body.append(pre);
})().catch(error => window.errors.push(String(error)));
