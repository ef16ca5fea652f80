mod hostile;
mod pair;
mod scenarios;
