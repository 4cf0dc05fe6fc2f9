"""Lists the models as an OpenAI user does."""

from connect import answer, client, task

job = task()
models = client(job).models.list()
answer(models=[model.model_dump() for model in models])
