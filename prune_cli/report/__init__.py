"""What users see of outcomes, methods and artifacts: gathered as JSON values, then put into words."""
