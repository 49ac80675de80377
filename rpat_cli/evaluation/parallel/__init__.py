"""One evaluation in chunks, shared by processes or ranks, and resumed."""
