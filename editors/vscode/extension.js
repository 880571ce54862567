// Starts `otto lsp`, and leaves everything else to it.
'use strict';

const { workspace } = require('vscode');
const { LanguageClient } = require('vscode-languageclient/node');

let client;

exports.activate = function activate() {
  const command = workspace.getConfiguration('otto').get('path', 'otto');
  const server = { command, args: ['lsp'] };
  const options = { documentSelector: [{ scheme: 'file', language: 'otto' }] };
  client = new LanguageClient('otto', 'Otto', server, options);
  return client.start();
};

exports.deactivate = function deactivate() {
  return client && client.stop();
};
