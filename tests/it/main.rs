mod answer;
mod front;
mod harness;
