"""The doctor within other people's trainers: thin adapters around `wellfit.Monitor`.

lightning       DoctorCallback for Lightning 2
transformers    DoctorCallback for the Hugging Face Trainer
doctor, figures, batches, missing    what the adapters share; none of them imports a trainer's library
"""
